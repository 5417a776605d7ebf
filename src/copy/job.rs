//! The Job that executes a run inside the cluster, as a value: pure, golden-tested.
//!
//! Its pod takes up a run whose records are in the cluster, so a pod that is killed is followed by one that resumes. It
//! needs a service account and nothing else: no user of its own but not root, no file system, no privileges.

use super::pod::{annotations, check_patch, labels, merge};
use crate::words::{Json, Problem, RunId};
use serde_json::json;

/// How often the pod may end before its run is over, through no fault of the run.
const ATTEMPTS: u64 = 6;
/// From the first signal to the second: the step in hand ends.
const GRACE_S: u64 = 60;
/// No user of the image's.
const USER: u64 = 65532;

/// Everything that the Job is made of.
#[derive(Clone, Debug)]
pub struct JobPlan<'a> {
    pub run: &'a RunId,
    /// The namespace of the run's own records.
    pub namespace: &'a str,
    pub account: &'a str,
    pub image: &'a str,
    /// Merged over the pod.
    pub patch: &'a Json,
}

/// The name of a run's Job.
pub fn name(run: &RunId) -> String {
    format!("pvmigrate-{run}")
}

/// Makes the Job.
pub fn render(plan: &JobPlan<'_>) -> Json {
    let name = name(plan.run);
    let run = plan.run.as_str();
    let args = ["resume", run, "--store", "cluster", "--run-namespace", plan.namespace, "--yes", "--of-job", &name];
    let mut pod = json!({
        "metadata": {"labels": labels(run), "annotations": annotations()},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": plan.account,
            "automountServiceAccountToken": true,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": GRACE_S,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "run",
                "image": plan.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["pvmigrate"],
                "args": args,
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                },
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
            }],
        },
    });
    merge(&mut pod, plan.patch);
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": plan.namespace, "labels": labels(run)},
        "spec": {"backoffLimit": ATTEMPTS, "template": pod},
    })
}

/// Checks a patch of the user's for the pod.
///
/// # Errors
/// If it touches what the run rests on.
pub fn check(patch: &Json) -> Result<(), Problem> {
    check_patch(patch)?;
    for (field, hint) in [
        ("serviceAccountName", "name it with --service-account"),
        ("serviceAccount", "name it with --service-account"),
        ("automountServiceAccountToken", "without its token it cannot do anything"),
        ("initContainers", "it is one container"),
    ] {
        if patch["spec"].get(field).is_some() {
            return Err(Problem::usage(format!("the patch of the Job must not change {field}")).hint(hint));
        }
    }
    Ok(())
}

/// The same Job, which makes no more pods once the one that asks for it has failed: the run failed for good.
pub fn given_up(job: &Json) -> Json {
    let mut job = job.clone();
    job["spec"]["backoffLimit"] = json!(0);
    job
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_in_deploy_is_this_one() {
        let run = RunId::parse("0123abcd").unwrap();
        let image = concat!("docker.io/pvmigrate/agent:", env!("CARGO_PKG_VERSION"));
        let plan = JobPlan { run: &run, namespace: "pvmigrate", account: "pvmigrate", image, patch: &Json::Null };
        let text = serde_yaml_ng::to_string(&render(&plan)).unwrap();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/job.yaml");
        if std::env::var_os("INSTA_UPDATE").is_some_and(|how| how == "always") {
            std::fs::write(&path, &text).unwrap();
        }
        assert!(
            text == std::fs::read_to_string(&path).unwrap(),
            "INSTA_UPDATE=always makes deploy/job.yaml anew:\n{text}"
        );
    }

    #[test]
    fn a_patch_says_how_the_pod_runs_and_not_what_it_does() {
        for (patch, wrong) in [
            (json!({"spec": {"tolerations": [], "hostNetwork": true}}), ""),
            (json!({"spec": {"containers": [{"env": [{"name": "A", "value": "b"}]}]}}), ""),
            (json!({"spec": {"serviceAccountName": "x"}}), "serviceAccountName"),
            (json!({"spec": {"restartPolicy": "Always"}}), "restart policy"),
            (json!({"spec": {"containers": [{"args": ["x"]}]}}), "the containers"),
            (json!({"metadata": {"labels": {"pvmigrate.io/run": "x"}}}), "pvmigrate.io"),
        ] {
            let checked = check(&patch).map_err(|problem| problem.message);
            match wrong {
                "" => assert_eq!(checked, Ok(()), "{patch}"),
                wrong => {
                    assert!(checked.as_ref().is_err_and(|message| message.contains(wrong)), "{patch}: {checked:?}")
                }
            }
        }
        let run = RunId::parse("0123abcd").unwrap();
        let patch =
            json!({"spec": {"hostNetwork": true, "containers": [{"resources": {"limits": {"memory": "2Gi"}}}]}});
        let made = render(&JobPlan { run: &run, namespace: "ops", account: "mover", image: "x", patch: &patch });
        let spec = &made["spec"]["template"]["spec"];
        assert_eq!(
            (&spec["hostNetwork"], &spec["containers"][0]["resources"]["limits"]["memory"]),
            (&json!(true), &json!("2Gi"))
        );
        assert_eq!(spec["containers"][0]["args"][1], "0123abcd");
        assert_eq!(given_up(&made)["spec"]["backoffLimit"], 0);
    }
}
