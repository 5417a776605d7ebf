//! Users who may do only some things: a ServiceAccount's token in a kubeconfig of its own.

use super::{World, random};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

impl World {
    /// A kubeconfig whose user has exactly these PolicyRules, cluster-wide.
    pub async fn limited_user(&self, rules: Value) -> PathBuf {
        let name = format!("{}-{}", self.ns, random());
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        self.apply(account).await;
        let group = "rbac.authorization.k8s.io";
        let version = format!("{group}/v1");
        self.apply(json!({"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}))
            .await;
        self.apply(json!({
            "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "namespace": self.ns, "name": name}],
        }))
        .await;
        let path = self.kubeconfig_of(&self.ns, &name).await;
        self.effective(&self.ns, &name, &rules).await;
        path
    }

    /// Applies manifests of roles, and gives a kubeconfig of their ServiceAccount.
    pub async fn granted_user(&self, manifests: &Value) -> PathBuf {
        let items = manifests["items"].as_array().expect("they are a list");
        let account = items.iter().find(|one| one["kind"] == "ServiceAccount").expect("there is an account");
        let text = |key: &str| account["metadata"][key].as_str().expect("it has one").to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        for item in items {
            self.apply(item.clone()).await;
        }
        let path = self.kubeconfig_of(&namespace, &name).await;
        let everywhere = items.iter().find(|one| one["kind"] == "ClusterRole").expect("there is a role");
        self.effective(&namespace, &name, &everywhere["rules"]).await;
        path
    }

    /// A kubeconfig with the token of a ServiceAccount.
    async fn kubeconfig_of(&self, namespace: &str, name: &str) -> PathBuf {
        // Kubernetes 1.20 makes the token by itself.
        let account = format!("{namespace}/{name}");
        let secret = async || {
            let account = self.get("ServiceAccount", &account).await;
            account["secrets"][0]["name"].as_str().map(str::to_owned)
        };
        let secret = self.until("the account's secret", Duration::from_secs(30), secret).await;
        let secret = self.get("Secret", &format!("{namespace}/{secret}")).await;
        let token = unbase64(secret["data"]["token"].as_str().expect("the secret has a token"));
        let admin = std::fs::read_to_string(&self.ground.kubeconfig).expect("the kubeconfig can be read");
        let mut config: Value = serde_yaml_ng::from_str(&admin).expect("the kubeconfig is YAML");
        config["users"] = json!([{"name": "limited", "user": {"token": token}}]);
        config["contexts"][0]["context"]["user"] = json!("limited");
        let path = self.dir().join(format!("{name}.kubeconfig"));
        std::fs::write(&path, config.to_string()).expect("a file can be written");
        path
    }

    /// More rules for the user of a kubeconfig that `limited_user` made.
    pub async fn grant(&self, kubeconfig: &Path, rules: Value) {
        let name = kubeconfig.file_stem().expect("it is a file").to_string_lossy().into_owned();
        let role = self.get("ClusterRole", &name).await;
        let mut all = role["rules"].as_array().cloned().unwrap_or_default();
        all.extend(rules.as_array().expect("rules are a list").iter().cloned());
        self.patch("ClusterRole", &name, json!({"rules": all})).await;
        self.effective(&self.ns, &name, &rules).await;
    }

    pub fn is_lab(&self) -> bool {
        self.ground.bench().is_some()
    }

    /// The kubeconfig of who may do everything.
    pub fn admin(&self) -> PathBuf {
        self.ground.kubeconfig.clone()
    }

    /// Whether the cluster's kubectl succeeds as the user of a kubeconfig, in the test's namespace.
    pub async fn kubectl(&self, kubeconfig: &Path, args: &[&str]) -> bool {
        if self.ground.bench().is_some() {
            return self.kubectl_in_lab(kubeconfig, args).await;
        }
        let mut command = Command::new(self.ground.script());
        command.arg("kubectl").arg("--kubeconfig").arg(kubeconfig).args(["-n", &self.ns]).args(args);
        command.output().expect("the cluster script runs").status.success()
    }

    /// What the tests type, as kubectl would ask it: the lab's tests need nothing installed.
    async fn kubectl_in_lab(&self, kubeconfig: &Path, args: &[&str]) -> bool {
        match args {
            ["get", what] => {
                let plural = if *what == "pvc" { "persistentvolumeclaims" } else { what };
                let path = format!("/api/v1/namespaces/{}/{plural}", self.ns);
                self.ground.send_as(kubeconfig, "GET", &path, &Value::Null).await.is_some()
            }
            ["auth", "can-i", verb, what, options @ ..] => {
                let (resource, group) = what.split_once('.').unwrap_or((what, ""));
                let sub = options.iter().find_map(|option| option.strip_prefix("--subresource="));
                let namespace = options.iter().skip_while(|option| **option != "-n").nth(1);
                let attributes = json!({
                    "verb": verb, "group": group, "resource": resource, "subresource": sub.unwrap_or_default(),
                    "namespace": namespace.copied().unwrap_or(&self.ns),
                });
                let review = json!({
                    "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                    "spec": {"resourceAttributes": attributes},
                });
                let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
                let answer = self.ground.send_as(kubeconfig, "POST", path, &review).await;
                answer.expect("everybody may ask for his own rights")["status"]["allowed"] == true
            }
            other => panic!("the lab's tests have no kubectl for {other:?}"),
        }
    }

    /// Waits until the authorizer knows the last of the rules.
    async fn effective(&self, namespace: &str, account: &str, rules: &Value) {
        let Some(rule) = rules.as_array().and_then(|rules| rules.last()) else {
            return;
        };
        let (resource_and_sub, group) = (rule["resources"][0].as_str(), rule["apiGroups"][0].as_str());
        let Some((whole, group)) = resource_and_sub.zip(group) else {
            return;
        };
        let (plural, sub) = whole.split_once('/').unwrap_or((whole, ""));
        let mut attributes = json!({"verb": rule["verbs"][0], "group": group, "resource": plural, "subresource": sub});
        if rule["resourceNames"][0].is_string() {
            attributes["name"] = rule["resourceNames"][0].clone();
        }
        let user = format!("system:serviceaccount:{namespace}:{account}");
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": attributes},
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let allowed = async || {
            let answer = self.ground.send("POST", path, review.clone()).await.expect("access can be reviewed");
            (answer["status"]["allowed"] == true).then_some(())
        };
        self.until("the rules to take effect", Duration::from_secs(10), allowed).await;
    }
}

fn unbase64(text: &str) -> String {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        bits = (bits << 6) | u32::from(value(byte));
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held).to_le_bytes()[0]);
        }
    }
    String::from_utf8(bytes).expect("a token is text")
}
