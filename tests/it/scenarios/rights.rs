//! `pvmigrate rbac`: what it prints suffices, and nothing of it is too much.

use crate::world::{World, cluster_test, opts};
use serde_json::{Value, json};

/// Deployment `web` and StatefulSet `db`, each on a claim of the class that is left.
struct Both<'w> {
    w: &'w World,
    from: String,
    to: String,
}

async fn both(w: &World) -> Both<'_> {
    let (from, to) = (w.class("slow").await, w.class("fast").await);
    w.claim("data", &from, "32Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    w.exercise_statefulset("db", 1, &from, "32Mi", opts()).await;
    w.ready("Deployment", "web").await;
    w.ready("StatefulSet", "db").await;
    Both { w, from, to }
}

impl Both<'_> {
    /// A move with all that it can be asked to do.
    fn args<'a>(&'a self, image: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let words = ["run", "sc-migrate", "--source-sc", &self.from, "--dest-sc", &self.to, "--image", image, "--yes"];
        [&words[..], &["--originals", "delete", "--finished-pods", "delete", "--templates", "print"], more].concat()
    }

    async fn has_moved(&self) {
        for claim in ["data", "data-db-0"] {
            assert_eq!(self.w.get("pvc", claim).await["spec"]["storageClassName"], self.to.as_str(), "{claim}");
        }
        self.w.still_intact().await;
        assert_eq!(self.w.leftovers().await, Vec::<String>::new());
    }
}

/// The roles for sc-migrate, for an account of this test.
async fn roles(w: &World, more: &[&str]) -> Value {
    let account = format!("{}-mover", w.ns);
    let words = ["rbac", "sc-migrate", "--service-account", &account, "--run-namespace", &w.ns, "--output", "json"];
    let printed = w.pvmigrate(&[&words[..], more].concat()).await.succeeds();
    serde_json::from_str(&printed.stdout).expect("it is JSON")
}

cluster_test!(the_roles_that_rbac_prints_suffice_for_a_move, async |w: &World| {
    let both = both(w).await;
    let user = w.granted_user(&roles(w, &[]).await).await;
    let image = w.image();
    w.pvmigrate(&both.args(&image, &["--run-namespace", &w.ns])).kubeconfig(&user).await.succeeds().done();
    both.has_moved().await;
});

cluster_test!(lab "the rules are judged alike there" the_same_roles_suffice_for_the_way_back, async |w: &World| {
    let both = both(w).await;
    let user = w.granted_user(&roles(w, &[]).await).await;
    let (image, there) = (w.image(), w.ns.as_str());
    let words = ["run", "sc-migrate", "--source-sc", &both.from, "--dest-sc", &both.to, "--image", &image, "--yes"];
    w.pvmigrate(&[&words[..], &["--run-namespace", there]].concat()).kubeconfig(&user).await.succeeds().done();
    let back = ["rollback", &w.run_id(), "--reverse-sync", "--yes"];
    w.pvmigrate(&back).kubeconfig(&user).await.succeeds().done();
    for claim in ["data", "data-db-0"] {
        assert_eq!(w.get("pvc", claim).await["spec"]["storageClassName"], both.from.as_str(), "{claim}");
    }
    w.still_intact().await;
});

// The same where all but what must be seen everywhere is granted in the one namespace.
cluster_test!(lab "the rules are judged alike there" roles_of_a_namespace_suffice_for_a_move_in_it, async |w: &World| {
    let both = both(w).await;
    let printed = roles(w, &["--namespace-role", &w.ns]).await;
    let everywhere = &printed["items"].as_array().expect("they are a list")[1]["rules"];
    assert!(!everywhere.to_string().contains("\"create\",\"delete\""), "{everywhere:#}");
    let user = w.granted_user(&printed).await;
    let image = w.image();
    w.pvmigrate(&both.args(&image, &["--run-namespace", &w.ns])).kubeconfig(&user).await.succeeds().done();
    both.has_moved().await;
});

/// Verb, group and resource of each right of a role.
fn singles(role: &Value) -> Vec<[String; 3]> {
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut singles = Vec::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for verb in texts(&rule["verbs"]) {
            for resource in texts(&rule["resources"]) {
                singles.push([verb.clone(), texts(&rule["apiGroups"])[0].clone(), resource]);
            }
        }
    }
    singles
}

fn rules(singles: &[[String; 3]]) -> Value {
    let rule =
        |[verb, group, resource]: &[String; 3]| json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
    singles.iter().map(rule).collect()
}

/// What is missed without being in the way: who has none of it moves all the same.
fn is_missed_only(single: &[String; 3]) -> bool {
    let [verb, group, resource] = single.each_ref().map(String::as_str);
    match (verb, group, resource) {
        // Nice to have.
        (_, "", "events" | "resourcequotas") => true,
        // Everybody may ask for his own rights.
        ("create", "authorization.k8s.io", _) => true,
        // The lab does not serve them.
        (_, "keda.sh" | "argoproj.io" | "snapshot.storage.k8s.io", _) => true,
        _ => false,
    }
}

cluster_test!(lab "the rules are judged alike there" without_any_one_of_the_rights_nothing_is_changed, async |w: &World| {
    let both = both(w).await;
    let printed = roles(w, &[]).await;
    let user = w.granted_user(&printed).await;
    let role = printed["items"].as_array().and_then(|all| all.iter().find(|one| one["kind"] == "ClusterRole"));
    let role = role.expect("there is a role for the cluster");
    let name = role["metadata"]["name"].as_str().expect("it has a name");
    let all = singles(role);
    assert!(all.len() > 40, "{} rights", all.len());
    let before = w.picture().await;
    let image = w.image();
    let args = both.args(&image, &["--set-defaults", "--run-namespace", &w.ns]);
    let mut unnoticed = Vec::new();
    for missing in all.iter().filter(|single| !is_missed_only(single)) {
        let rest: Vec<_> = all.iter().filter(|single| *single != missing).cloned().collect();
        w.patch("ClusterRole", name, json!({"rules": rules(&rest)})).await;
        let refused = w.pvmigrate(&args).kubeconfig(&user).await;
        if refused.code != Some(3) || !format!("{}{}", refused.stdout, refused.stderr).contains(&missing[2]) {
            unnoticed.push(format!("{missing:?}: {refused}"));
        }
    }
    assert!(unnoticed.is_empty(), "{}", unnoticed.join("\n\n"));
    w.unchanged_since(&before).await;

    let rest: Vec<_> = all.iter().filter(|single| !is_missed_only(single)).cloned().collect();
    w.patch("ClusterRole", name, json!({"rules": rules(&rest)})).await;
    w.pvmigrate(&args).kubeconfig(&user).await.succeeds().done();
    both.has_moved().await;
});

// The claim is made anew with its owner: that it may not be seen must not be found out when the claim is gone.
cluster_test!(lab "the rules are judged alike there" an_owner_that_we_may_not_see_is_told_before_the_first_change, async |w: &World| {
    let both = both(w).await;
    let note = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}});
    w.apply(note).await;
    let uid = w.get("ConfigMap", "note").await["metadata"]["uid"].clone();
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "note", "uid": uid}]);
    w.patch("pvc", "data", json!({"metadata": {"ownerReferences": owner}})).await;
    let printed = roles(w, &[]).await;
    let user = w.granted_user(&printed).await;
    let image = w.image();
    // The account's own records are ConfigMaps too, in another namespace.
    let elsewhere = w.extra_namespace().await;
    let role = format!("{}-mover-runs", w.ns);
    w.delete("Role", &role).await;
    let args = both.args(&image, &["--run-namespace", &elsewhere]);
    let before = w.picture().await;
    let refused = w.pvmigrate(&args).kubeconfig(&user).await.exits(3);
    refused.says("we may not get configmaps in namespace").says("nothing was changed").done();
    w.unchanged_since(&before).await;
});
