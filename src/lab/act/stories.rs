//! Whole lives of workloads, with all controllers together, in both orders.

use super::drive::Drive;
use super::owner::{controller_of, is_going};
use super::{Propagation, Value};
use crate::lab::store::{list_of, text};
use serde_json::json;

fn template(app: &str) -> Value {
    let containers = json!([{"name": "main", "image": "agent"}]);
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": containers, "restartPolicy": "Always"}})
}

fn workload(kind: &str, name: &str, replicas: u32) -> Value {
    json!({
        "kind": kind, "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name)},
    })
}

fn deployment(replicas: u32, strategy: &str) -> Value {
    let mut object = workload("Deployment", "web", replicas);
    object["metadata"]["annotations"] = json!({"note": "n", "kubectl.kubernetes.io/last-applied-configuration": "{}"});
    object["spec"]["strategy"] = json!({"type": strategy});
    object["spec"]["progressDeadlineSeconds"] = 600.into();
    object["spec"]["revisionHistoryLimit"] = 1.into();
    object
}

fn stateful_set(replicas: u32) -> Value {
    let mut object = workload("StatefulSet", "db", replicas);
    let claim = json!({
        "metadata": {"name": "data", "labels": {"l": "1", "app": "other"}, "annotations": {"a": "1"}},
        "spec": {"storageClassName": "slow"},
    });
    object["spec"]["volumeClaimTemplates"] = json!([claim]);
    object["spec"]["serviceName"] = "db".into();
    object["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
    object
}

fn relabel(object: &mut Value, to: &str) {
    object["spec"]["template"]["metadata"]["labels"]["t"] = to.into();
}

fn conditions(object: &Value) -> Vec<(String, String, String)> {
    let own = |value: &Value| text(value).to_owned();
    let all = list_of(&object["status"]["conditions"]).iter();
    all.map(|one| (own(&one["type"]), own(&one["status"]), own(&one["reason"]))).collect()
}

fn owned(part: (&str, &str, &str)) -> (String, String, String) {
    (part.0.to_owned(), part.1.to_owned(), part.2.to_owned())
}

/// The status without conditions.
fn counts(object: &Value) -> Value {
    let mut status = object["status"].clone();
    status.as_object_mut().unwrap().shift_remove("conditions");
    status
}

#[test]
fn a_deployment_lives() {
    Drive::both(|drive| {
        drive.make(deployment(4, "RollingUpdate"));
        drive.settle();
        let set = drive.only("ReplicaSet");
        let hash = text(&set["metadata"]["labels"]["pod-template-hash"]).to_owned();
        assert_eq!(set["metadata"]["name"], format!("web-{hash}"));
        let annotations = json!({
            "note": "n", "deployment.kubernetes.io/revision": "1", "deployment.kubernetes.io/desired-replicas": "4",
            "deployment.kubernetes.io/max-replicas": "5",
        });
        assert_eq!(set["metadata"]["annotations"], annotations);
        assert_eq!(set["spec"]["selector"], json!({"matchLabels": {"app": "web", "pod-template-hash": hash}}));
        let status = json!({
            "replicas": 4, "fullyLabeledReplicas": 4, "readyReplicas": 4, "availableReplicas": 4, "observedGeneration": 1,
        });
        assert_eq!(set["status"], status);
        let web = drive.get("Deployment", "web");
        assert_eq!(web["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
        assert_eq!(web["metadata"]["generation"], 1);
        let status = json!({
            "observedGeneration": 1, "replicas": 4, "updatedReplicas": 4, "readyReplicas": 4, "availableReplicas": 4,
        });
        assert_eq!(counts(&web), status);
        let expected =
            [("Available", "True", "MinimumReplicasAvailable"), ("Progressing", "True", "NewReplicaSetAvailable")];
        assert_eq!(conditions(&web), expected.map(owned));
        let said = format!("ScalingReplicaSet Scaled up replica set web-{hash} to 4");
        assert!(drive.said.contains(&said), "{:?}", drive.said);
        assert_eq!(drive.said.iter().filter(|one| one.starts_with("SuccessfulCreate Created pod: web-")).count(), 4);

        drive.most_active = 0;
        drive.update("Deployment", "web", |web| relabel(web, "2"));
        drive.settle();
        assert_eq!(drive.most_active, 5);
        assert_eq!(drive.names("ReplicaSet").len(), 2);
        let web = drive.get("Deployment", "web");
        assert_eq!(web["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
        assert_eq!(web["status"]["updatedReplicas"], 4);
        assert_eq!(drive.get("ReplicaSet", &format!("web-{hash}"))["spec"]["replicas"], 0);

        // A third template: of the old ones only one is kept.
        drive.update("Deployment", "web", |web| relabel(web, "3"));
        drive.settle();
        assert_eq!(drive.names("ReplicaSet").len(), 2);

        drive.holds = true;
        drive.scale("Deployment", "web", 0);
        drive.settle();
        // Pods that are going do not count.
        let web = drive.get("Deployment", "web");
        assert_eq!((drive.names("Pod").len(), counts(&web)), (4, json!({"observedGeneration": 4})));
        drive.holds = false;
        drive.settle();
        assert!(drive.names("Pod").is_empty());
        drive.scale("Deployment", "web", 2);
        drive.settle();
        assert_eq!(drive.names("Pod").len(), 2);

        drive.delete("Deployment", "web", Propagation::Background);
        drive.settle();
        assert!(drive.names("ReplicaSet").is_empty() && drive.names("Pod").is_empty());
    });
}

#[test]
fn a_template_of_old_gets_its_replica_set_back() {
    Drive::both(|drive| {
        drive.make(deployment(1, "RollingUpdate"));
        drive.settle();
        let first = drive.only("ReplicaSet");
        drive.update("Deployment", "web", |web| relabel(web, "2"));
        drive.settle();
        drive.update("Deployment", "web", |web| web["spec"]["template"] = template("web"));
        drive.settle();
        let again = drive.get("ReplicaSet", text(&first["metadata"]["name"]));
        assert_eq!(again["spec"]["replicas"], 1);
        assert_eq!(again["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
        assert_eq!(again["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1");
    });
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    Drive::both(|drive| {
        drive.make(deployment(2, "Recreate"));
        drive.settle();
        let old = drive.names("Pod");
        drive.holds = true;
        drive.update("Deployment", "web", |web| relabel(web, "2"));
        drive.settle();
        assert_eq!(drive.names("Pod"), old);
        assert_eq!(drive.names("ReplicaSet").len(), 1);
        drive.holds = false;
        drive.most_pods = 0;
        drive.settle();
        assert_eq!((drive.names("Pod").len(), drive.most_pods), (2, 2));
        assert!(drive.names("Pod").iter().all(|pod| !old.contains(pod)));
    });
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    Drive::both(|drive| {
        drive.make(deployment(2, "RollingUpdate"));
        drive.settle();
        drive.update("Deployment", "web", |web| {
            web["spec"]["paused"] = true.into();
            relabel(web, "2");
            web["spec"]["replicas"] = 3.into();
        });
        drive.settle();
        assert_eq!((drive.names("ReplicaSet").len(), drive.names("Pod").len()), (1, 3));
        let said = conditions(&drive.get("Deployment", "web"));
        assert!(said.contains(&owned(("Progressing", "Unknown", "DeploymentPaused"))), "{said:?}");
        drive.update("Deployment", "web", |web| web["spec"]["paused"] = false.into());
        drive.settle();
        assert_eq!(drive.names("ReplicaSet").len(), 2);
        assert_eq!(drive.get("Deployment", "web")["status"]["updatedReplicas"], 3);
    });
}

#[test]
fn a_rollout_that_stands_still_times_out() {
    Drive::both(|drive| {
        drive.is_slow = true;
        drive.make(deployment(1, "RollingUpdate"));
        drive.settle();
        drive.pass(601);
        let said = conditions(&drive.get("Deployment", "web"));
        assert!(said.contains(&owned(("Progressing", "False", "ProgressDeadlineExceeded"))), "{said:?}");
        drive.is_slow = false;
        drive.settle();
        let said = conditions(&drive.get("Deployment", "web"));
        assert!(said.contains(&owned(("Progressing", "True", "NewReplicaSetAvailable"))), "{said:?}");
    });
}

#[test]
fn a_replica_set_takes_in_orphans_and_lets_strangers_go() {
    Drive::both(|drive| {
        let pod = json!({"kind": "Pod", "metadata": {"name": "lone", "labels": {"app": "web"}}, "spec": {}});
        drive.make(pod.clone());
        drive.make(workload("ReplicaSet", "web", 2));
        drive.settle();
        assert_eq!(drive.names("Pod").len(), 2);
        assert!(controller_of(&drive.get("Pod", "lone")).is_some());
        drive.update("Pod", "lone", |pod| pod["metadata"]["labels"]["app"] = "other".into());
        drive.settle();
        assert_eq!(drive.names("Pod").len(), 3);
        assert!(controller_of(&drive.get("Pod", "lone")).is_none());
        // One too many is taken in and goes.
        drive.update("Pod", "lone", |pod| pod["metadata"]["labels"]["app"] = "web".into());
        drive.settle();
        assert_eq!(drive.names("Pod").len(), 2);
        // A pod that failed is replaced, and stays.
        let lost = drive.names("Pod").remove(0);
        drive.status("Pod", &lost, json!({"phase": "Failed"}));
        drive.settle();
        assert_eq!(drive.names("Pod").len(), 3);
        assert_eq!(drive.get("ReplicaSet", "web")["status"]["replicas"], 2);
    });
}

#[test]
fn a_stateful_set_lives() {
    Drive::both(|drive| {
        drive.is_slow = true;
        drive.make(stateful_set(3));
        drive.settle();
        assert_eq!(drive.names("Pod"), ["db-0"]);
        let claim = drive.only("PersistentVolumeClaim");
        assert_eq!(claim["metadata"]["labels"], json!({"l": "1", "app": "db"}));
        assert_eq!(claim["metadata"]["annotations"], json!({"a": "1"}));
        assert!(claim["metadata"]["ownerReferences"].is_null());
        drive.is_slow = false;
        drive.settle();
        assert_eq!(drive.names("Pod"), ["db-0", "db-1", "db-2"]);
        assert_eq!(drive.names("PersistentVolumeClaim"), ["data-db-0", "data-db-1", "data-db-2"]);
        let revision = drive.names("ControllerRevision").remove(0);
        let pod = drive.get("Pod", "db-1");
        let labels = json!({
            "app": "db", "controller-revision-hash": revision, "statefulset.kubernetes.io/pod-name": "db-1",
        });
        assert_eq!(pod["metadata"]["labels"], labels);
        assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-1");
        assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("db-1"), &json!("db")));
        let status = json!({
            "observedGeneration": 1, "replicas": 3, "readyReplicas": 3, "currentReplicas": 3, "updatedReplicas": 3,
            "currentRevision": revision, "updateRevision": revision, "collisionCount": 0,
        });
        assert_eq!(drive.get("StatefulSet", "db")["status"], status);
        let first = ["Claim data-db-0 Pod db-0 in StatefulSet db success", "Pod db-0 in StatefulSet db successful"];
        assert_eq!(drive.said[..2], first.map(|one| format!("SuccessfulCreate create {one}")));

        // Down from the highest, one at a time, each waited for.
        drive.holds = true;
        drive.scale("StatefulSet", "db", 0);
        drive.settle();
        let going: Vec<bool> = ["db-0", "db-1", "db-2"].map(|pod| is_going(&drive.get("Pod", pod))).to_vec();
        assert_eq!(going, [false, false, true]);
        let status = drive.get("StatefulSet", "db")["status"].clone();
        assert_eq!((&status["replicas"], &status["currentReplicas"]), (&json!(3), &json!(2)));
        drive.holds = false;
        drive.settle();
        assert!(drive.names("Pod").is_empty());
        assert_eq!(drive.names("PersistentVolumeClaim").len(), 3);
        let status = json!({
            "observedGeneration": 2, "replicas": 0, "currentRevision": revision, "updateRevision": revision,
            "collisionCount": 0,
        });
        assert_eq!(drive.get("StatefulSet", "db")["status"], status);

        // A claim that is there is used, one that is missing is made, one that is going is waited for.
        drive.delete("PersistentVolumeClaim", "data-db-1", Propagation::Background);
        drive.update("PersistentVolumeClaim", "data-db-2", |claim| {
            claim["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
        });
        drive.delete("PersistentVolumeClaim", "data-db-2", Propagation::Background);
        let kept = drive.get("PersistentVolumeClaim", "data-db-0");
        drive.scale("StatefulSet", "db", 3);
        drive.settle();
        assert_eq!(drive.names("Pod"), ["db-0", "db-1"]);
        assert_eq!(drive.get("PersistentVolumeClaim", "data-db-0")["metadata"]["uid"], kept["metadata"]["uid"]);
        drive.update("PersistentVolumeClaim", "data-db-2", |claim| claim["metadata"]["finalizers"] = json!([]));
        drive.settle();
        assert_eq!(drive.names("Pod"), ["db-0", "db-1", "db-2"]);
    });
}

#[test]
fn a_stateful_set_rolls_from_the_highest() {
    Drive::both(|drive| {
        drive.make(stateful_set(3));
        drive.settle();
        let old = drive.only("ControllerRevision");
        let old = text(&old["metadata"]["name"]);
        let revisions = |drive: &Drive| -> Vec<bool> {
            let revision = |pod: &str| drive.get("Pod", pod)["metadata"]["labels"]["controller-revision-hash"] == old;
            ["db-0", "db-1", "db-2"].map(revision).to_vec()
        };
        drive.update("StatefulSet", "db", |set| {
            relabel(set, "2");
            set["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 1.into();
        });
        drive.settle();
        assert_eq!(revisions(drive), [true, false, false]);
        let status = drive.get("StatefulSet", "db")["status"].clone();
        assert_eq!((&status["currentReplicas"], &status["updatedReplicas"]), (&json!(1), &json!(2)));
        assert_ne!(status["currentRevision"], status["updateRevision"]);
        // Below the partition a pod comes back as it was.
        drive.delete("Pod", "db-0", Propagation::Background);
        drive.settle();
        assert_eq!(revisions(drive), [true, false, false]);
        drive.update("StatefulSet", "db", |set| {
            set["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 0.into();
        });
        drive.settle();
        assert_eq!(revisions(drive), [false, false, false]);
        let status = drive.get("StatefulSet", "db")["status"].clone();
        assert_eq!(status["currentRevision"], status["updateRevision"]);
        // OnDelete leaves them alone.
        drive.update("StatefulSet", "db", |set| {
            set["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
            set["spec"]["template"] = template("db");
        });
        drive.settle();
        assert_eq!(revisions(drive), [false, false, false]);
        drive.delete("Pod", "db-1", Propagation::Background);
        drive.settle();
        assert_eq!(revisions(drive), [false, true, false]);
    });
}

#[test]
fn a_failed_pod_of_a_stateful_set_is_made_again() {
    Drive::both(|drive| {
        drive.make(stateful_set(2));
        drive.settle();
        let before = drive.get("Pod", "db-1");
        drive.status("Pod", "db-1", json!({"phase": "Failed"}));
        drive.settle();
        let after = drive.get("Pod", "db-1");
        assert_ne!(before["metadata"]["uid"], after["metadata"]["uid"]);
        let said = "RecreatingFailedPod StatefulSet shop/db is recreating failed Pod db-1";
        assert!(drive.said.iter().any(|one| one == said), "{:?}", drive.said);
    });
}

#[test]
fn a_parallel_stateful_set_waits_for_nobody() {
    Drive::both(|drive| {
        drive.is_slow = true;
        let mut set = stateful_set(3);
        set["spec"]["podManagementPolicy"] = "Parallel".into();
        drive.make(set);
        drive.settle();
        assert_eq!(drive.names("Pod").len(), 3);
        drive.holds = true;
        drive.scale("StatefulSet", "db", 0);
        drive.settle();
        assert!(["db-0", "db-1", "db-2"].iter().all(|pod| is_going(&drive.get("Pod", pod))));
    });
}

#[test]
fn a_stateful_set_made_again_takes_its_pods_back() {
    Drive::both(|drive| {
        drive.make(stateful_set(2));
        drive.settle();
        let before = drive.get("Pod", "db-1");
        drive.delete("StatefulSet", "db", Propagation::Orphan);
        drive.settle();
        assert!(drive.find("StatefulSet", "db").is_none());
        assert!(controller_of(&drive.get("Pod", "db-1")).is_none());
        let set = drive.make(stateful_set(1));
        drive.settle();
        let kept = drive.get("Pod", "db-0");
        assert_eq!(controller_of(&kept).unwrap()["uid"], set["metadata"]["uid"]);
        // The surplus one was taken in too, and went.
        assert!(drive.find("Pod", "db-1").is_none(), "{before}");
        assert_eq!(drive.names("ControllerRevision").len(), 1);
    });
}

#[test]
fn a_daemon_set_has_one_pod_a_node() {
    Drive::both(|drive| {
        drive.make(workload("DaemonSet", "log", 0));
        drive.settle();
        let nodes = |drive: &Drive| -> Vec<String> {
            let all = drive.state.list("Pod", "").map(|(_, pod)| text(&pod["spec"]["nodeName"]).to_owned());
            let mut all: Vec<String> = all.collect();
            all.sort();
            all
        };
        assert_eq!(nodes(drive), ["node1", "node2"]);
        let status = json!({
            "currentNumberScheduled": 2, "numberMisscheduled": 0, "desiredNumberScheduled": 2, "numberReady": 2,
            "observedGeneration": 1, "updatedNumberScheduled": 2, "numberAvailable": 2,
        });
        assert_eq!(drive.get("DaemonSet", "log")["status"], status);
        let before = drive.names("Pod");
        drive.update("DaemonSet", "log", |set| relabel(set, "2"));
        drive.settle();
        assert!(drive.names("Pod").iter().all(|pod| !before.contains(pod)));
        // The usual way to stop one: a node selector that fits nothing.
        drive.update("DaemonSet", "log", |set| set["spec"]["template"]["spec"]["nodeSelector"] = json!({"no": "such"}));
        drive.settle();
        assert!(drive.names("Pod").is_empty());
        drive.update("DaemonSet", "log", |set| {
            set["spec"]["template"]["spec"]["nodeSelector"] = json!({"host": "node2"});
        });
        drive.settle();
        assert_eq!(nodes(drive), ["node2"]);
    });
}

fn job(end: &str, completions: u32, parallelism: u32) -> Value {
    let mut template = template("once");
    template["metadata"]["annotations"] = json!({"test/end": end});
    template["spec"]["restartPolicy"] = "Never".into();
    let spec = json!({
        "completions": completions, "parallelism": parallelism, "backoffLimit": 2,
        "selector": {"matchLabels": {"app": "once"}}, "template": template,
    });
    json!({"kind": "Job", "metadata": {"name": "once"}, "spec": spec})
}

#[test]
fn a_job_completes() {
    Drive::both(|drive| {
        drive.make(job("Succeeded", 3, 2));
        drive.settle();
        assert_eq!(drive.names("Pod").len(), 3);
        let job = drive.get("Job", "once");
        let at = "2026-11-21T12:00:00Z";
        let complete = json!([{"type": "Complete", "status": "True", "lastProbeTime": at, "lastTransitionTime": at}]);
        let status = json!({"conditions": complete, "startTime": at, "completionTime": at, "succeeded": 3});
        assert_eq!(job["status"], status);
        assert!(drive.said.contains(&"Completed Job completed".to_owned()));
    });
}

#[test]
fn a_job_gives_up() {
    Drive::both(|drive| {
        drive.make(job("Failed", 1, 1));
        drive.settle();
        // The second try came at once, the third waits.
        assert_eq!(drive.get("Job", "once")["status"]["failed"], 2);
        drive.pass(5);
        assert_eq!(drive.names("Pod").len(), 2);
        drive.pass(6);
        let job = drive.get("Job", "once");
        assert_eq!(conditions(&job), [owned(("Failed", "True", "BackoffLimitExceeded"))]);
        assert_eq!(job["status"]["failed"], 3);
    });
}

#[test]
fn a_job_that_takes_too_long_fails() {
    Drive::both(|drive| {
        let mut job = job("", 1, 1);
        job["spec"]["activeDeadlineSeconds"] = 60.into();
        drive.make(job);
        drive.settle();
        assert_eq!(drive.get("Job", "once")["status"]["active"], 1);
        drive.pass(61);
        assert_eq!(conditions(&drive.get("Job", "once")), [owned(("Failed", "True", "DeadlineExceeded"))]);
        assert!(drive.names("Pod").is_empty());
    });
}

#[test]
fn a_namespace_goes_after_everything_in_it() {
    Drive::both(|drive| {
        drive.make(deployment(2, "RollingUpdate"));
        drive.make(stateful_set(2));
        drive.settle();
        assert_eq!(drive.names("ServiceAccount"), ["default"]);
        assert_eq!(drive.names("ConfigMap"), ["kube-root-ca.crt"]);
        drive.make(json!({"kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["x.y/z"]}}));
        drive.delete("Namespace", "shop", Propagation::Background);
        drive.settle();
        assert_eq!(drive.names("ConfigMap"), ["held", "kube-root-ca.crt"], "everybody can see it going for a moment");
        drive.pass(2);
        assert_eq!(drive.names("ConfigMap"), ["held"]);
        assert!(drive.names("Pod").is_empty() && drive.names("PersistentVolumeClaim").is_empty());
        let namespace = drive.get("Namespace", "shop");
        let said = list_of(&namespace["status"]["conditions"]).last().unwrap()["message"].clone();
        assert_eq!(said, "Some content in the namespace has finalizers remaining: x.y/z in 1 resource instances");
        drive.update("ConfigMap", "held", |held| held["metadata"]["finalizers"] = json!([]));
        drive.settle();
        assert!(drive.find("Namespace", "shop").is_none());
    });
}

#[test]
fn foreground_deletion_goes_from_the_bottom_up() {
    Drive::both(|drive| {
        drive.make(deployment(2, "RollingUpdate"));
        drive.settle();
        drive.holds = true;
        drive.delete("Deployment", "web", Propagation::Foreground);
        drive.settle();
        // All are going, and each waits for what it owns.
        for kind in ["Deployment", "ReplicaSet"] {
            let object = drive.only(kind);
            assert_eq!(object["metadata"]["finalizers"], json!(["foregroundDeletion"]), "{kind}");
        }
        assert_eq!(drive.names("Pod").len(), 2);
        drive.holds = false;
        drive.settle();
        assert!(drive.find("Deployment", "web").is_none());
        assert!(drive.names("ReplicaSet").is_empty() && drive.names("Pod").is_empty());
    });
}

#[test]
fn nothing_goes_while_one_owner_lives() {
    Drive::both(|drive| {
        let owner = |name: &str| json!({"kind": "ConfigMap", "metadata": {"name": name}});
        let (one, two) = (drive.make(owner("one")), drive.make(owner("two")));
        let refer = |owner: &Value| {
            let meta = &owner["metadata"];
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": meta["name"], "uid": meta["uid"]})
        };
        let owners = json!([refer(&one), refer(&two)]);
        drive.make(json!({"kind": "Secret", "metadata": {"name": "child", "ownerReferences": owners}}));
        let foreign = json!([{"apiVersion": "example.com/v1", "kind": "Backup", "name": "b", "uid": "1"}]);
        drive.make(json!({"kind": "Secret", "metadata": {"name": "foreign", "ownerReferences": foreign}}));
        drive.settle();
        drive.delete("ConfigMap", "one", Propagation::Background);
        drive.settle();
        assert_eq!(drive.get("Secret", "child")["metadata"]["ownerReferences"], json!([refer(&two)]));
        // The name alone proves nothing.
        drive.delete("ConfigMap", "two", Propagation::Background);
        drive.make(owner("two"));
        drive.settle();
        assert_eq!(drive.names("Secret"), ["foreign"]);
    });
}

#[test]
fn pods_leave_a_silent_node_when_they_may_no_longer_bear_it() {
    Drive::both(|drive| {
        let bears = |seconds: Value| {
            let one = |key: &str| {
                let mut one = json!({"key": key, "operator": "Exists", "effect": "NoExecute"});
                if !seconds.is_null() {
                    one["tolerationSeconds"] = seconds.clone();
                }
                one
            };
            json!([one("node.kubernetes.io/unreachable"), one("node.kubernetes.io/not-ready")])
        };
        for (name, tolerations) in [("usual", bears(300.into())), ("always", bears(Value::Null)), ("never", json!([]))]
        {
            let spec = json!({"nodeName": "node1", "tolerations": tolerations});
            drive.make(json!({"kind": "Pod", "metadata": {"name": name}, "spec": spec}));
        }
        drive.settle();
        drive.holds = true;
        drive.status("Node", "node1", json!({"conditions": [{"type": "Ready", "status": "Unknown"}]}));
        drive.settle();
        let going = |drive: &Drive| ["always", "never", "usual"].map(|pod| is_going(&drive.get("Pod", pod)));
        assert_eq!(going(drive), [false, true, false]);
        assert_eq!(drive.get("Pod", "usual")["status"]["conditions"][0]["status"], "False");
        assert_eq!(list_of(&drive.get("Node", "node1")["spec"]["taints"]).len(), 2);
        drive.pass(299);
        assert_eq!(going(drive), [false, true, false]);
        drive.pass(1);
        assert_eq!(going(drive), [false, true, true]);
        // It comes back.
        drive.status("Node", "node1", json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        drive.settle();
        assert!(drive.get("Node", "node1")["spec"]["taints"].is_null());
        // It is thrown away: nobody else would remove its pods.
        drive.delete("Node", "node1", Propagation::Background);
        drive.pass(60);
        assert!(drive.names("Pod").is_empty());
    });
}

#[test]
fn many_workloads_settle() {
    Drive::both(|drive| {
        for number in 0..60 {
            let mut object = deployment(2, "Recreate");
            let name = format!("web{number}");
            object["metadata"]["name"] = name.clone().into();
            object["spec"]["selector"] = json!({"matchLabels": {"app": name}});
            object["spec"]["template"]["metadata"]["labels"] = json!({"app": name});
            drive.make(object);
        }
        let before = drive.asked;
        drive.settle();
        assert_eq!(drive.names("Pod").len(), 120);
        // So many questions a Deployment of two pods, however many others there are.
        assert!(drive.asked - before < 60 * 150, "{}", drive.asked - before);
    });
}
