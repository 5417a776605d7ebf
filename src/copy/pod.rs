//! The pod of a copy as a value: pure, golden-tested.
//!
//! Exec-form with constant paths, no shell, no service account token, nothing of a user's text in a command. Root with
//! the few capabilities that keeping owners and modes takes (PodSecurity baseline), or a user of one's own.

use super::waive::Waive;
use crate::cluster::{RUN, text};
use crate::words::{Json, Problem};
use serde_json::json;

/// Where the volumes are in the pod.
pub const SOURCE: &str = "/source";
pub const TARGET: &str = "/target";

/// What the pod is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// It mounts the target and ends: the volume is provisioned where it ran.
    Reserve,
    /// It mounts the source, whose file system is written to its disk.
    Sync,
    Copy {
        last: bool,
        since: Option<String>,
        since_end: Option<String>,
        /// An empty source is meant.
        allow_empty: bool,
        how: How,
        /// What is compared afterwards, if the pass is good.
        proof: Option<Compare>,
    },
    Verify {
        last: bool,
        what: Compare,
        /// Files and bytes in the source, for the progress.
        totals: Option<[u64; 2]>,
        workers: Option<i64>,
        waive: Waive,
    },
}

/// What a verification reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Compare {
    pub mode: String,
    pub since: Option<String>,
}

/// How a pass is made, where that is not the agent's own choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct How {
    pub engine: Option<String>,
    pub workers: Option<i64>,
    /// A size per second.
    pub bandwidth: Option<String>,
    /// The target is a clone that no pass has seen.
    pub cloned: bool,
    /// What the target may be without.
    pub waive: Waive,
}

impl Task {
    /// A first hot pass of which nothing else is asked.
    pub fn plain_copy() -> Task {
        let (since, since_end, proof) = (None, None, None);
        Task::Copy { last: false, since, since_end, allow_empty: false, how: How::default(), proof }
    }

    pub fn word(&self) -> &'static str {
        match self {
            Task::Reserve => "reserve",
            Task::Sync => "sync",
            Task::Copy { .. } => "copy",
            Task::Verify { .. } => "verify",
        }
    }

    fn pass(&self) -> &'static str {
        match self {
            Task::Reserve | Task::Sync => "none",
            Task::Copy { last: true, .. } | Task::Verify { last: true, .. } => "final",
            Task::Copy { .. } | Task::Verify { .. } => "hot",
        }
    }

    /// The same with one thread; `None` if it has no more than one.
    pub fn on_one_thread(&self) -> Option<Task> {
        let mut task = self.clone();
        let workers = match &mut task {
            Task::Reserve | Task::Sync => return None,
            Task::Copy { how, .. } if how.engine.is_some() => return None,
            Task::Copy { how, .. } => &mut how.workers,
            Task::Verify { workers, .. } => workers,
        };
        (workers.replace(1) != Some(1)).then_some(task)
    }

    fn args(&self) -> Vec<String> {
        let mut args = vec!["agent".to_owned()];
        let (since, since_end) = match self {
            Task::Reserve => return vec!["--version".to_owned()],
            Task::Sync => return ["agent", "sync", SOURCE].map(str::to_owned).to_vec(),
            Task::Copy { last, since, since_end, allow_empty, how, proof } => {
                args.extend(["copy", SOURCE, TARGET, "--pass", if *last { "final" } else { "hot" }].map(str::to_owned));
                let workers = how.workers.map(|workers| workers.to_string());
                for (word, value) in
                    [("--engine", &how.engine), ("--workers", &workers), ("--bandwidth-limit", &how.bandwidth)]
                {
                    if let Some(value) = value {
                        args.extend([word.to_owned(), value.clone()]);
                    }
                }
                if how.cloned {
                    args.push("--cloned".to_owned());
                }
                if *allow_empty {
                    args.push("--allow-empty".to_owned());
                }
                args.extend(without(how.waive));
                if let Some(Compare { mode, since }) = proof {
                    args.extend(["--verify".to_owned(), mode.clone()]);
                    args.extend(since.iter().flat_map(|since| ["--verified-since".to_owned(), since.clone()]));
                }
                (since, since_end)
            }
            Task::Verify { what: Compare { mode, since }, totals, workers, waive, .. } => {
                args.extend(["verify", SOURCE, TARGET, "--mode", mode].map(str::to_owned));
                for (word, total) in ["--files-total", "--bytes-total"].into_iter().zip(totals.iter().flatten()) {
                    args.extend([word.to_owned(), total.to_string()]);
                }
                if let Some(workers) = workers {
                    args.extend(["--workers".to_owned(), workers.to_string()]);
                }
                args.extend(without(*waive));
                (since, &None)
            }
        };
        for (word, time) in [("--since", since), ("--since-end", since_end)] {
            if let Some(time) = time {
                args.extend([word.to_owned(), time.clone()]);
            }
        }
        args
    }
}

fn without(waive: Waive) -> Vec<String> {
    if waive.is_empty() { Vec::new() } else { vec!["--waive".to_owned(), waive.words().join(",")] }
}

/// Everything that the pod is made of.
#[derive(Clone, Debug)]
pub struct PodPlan {
    pub name: String,
    pub namespace: String,
    pub run: String,
    pub task: Task,
    pub image: String,
    /// The claim to read; absent for reservations.
    pub source: Option<String>,
    /// The claim to write, or to compare; absent where the source is only flushed.
    pub target: Option<String>,
    /// The volumes are devices (volumeMode Block), at the same paths.
    pub is_block: bool,
    pub node: Option<String>,
    /// The pod spec of the workload, as far as it says where and how its pods may run.
    pub like: Json,
    /// A user to run as instead of root.
    pub run_as: Option<i64>,
    /// Merged over everything.
    pub patch: Json,
}

/// The capabilities that root keeps: reading everything, and giving every file its owner, mode and kind.
const CAPABILITIES: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP", "MKNOD"];

/// Makes the pod.
pub fn render(plan: &PodPlan) -> Json {
    let security = match plan.run_as {
        None => json!({
            "runAsUser": 0, "runAsGroup": 0, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": CAPABILITIES},
        }),
        Some(user) => json!({
            "runAsUser": user, "runAsGroup": user, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        }),
    };
    let reads_only = !matches!(plan.task, Task::Copy { .. });
    // A device has no read-only: the agent opens the source for reading only.
    let place = |name: &str, path: &str, reads_only: bool| match plan.is_block {
        true => json!({"name": name, "devicePath": path}),
        false => json!({"name": name, "mountPath": path, "readOnly": reads_only}),
    };
    let (mut places, mut volumes) = (Vec::new(), Vec::new());
    // readOnly on the mount, not on the claim: an attachment as read-only would be another one than the workload's.
    for (name, path, claim, reads_only) in
        [("source", SOURCE, &plan.source, true), ("target", TARGET, &plan.target, reads_only)]
    {
        let Some(claim) = claim else { continue };
        places.push(place(name, path, reads_only));
        volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": claim}}));
    }
    let mut spec = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "agent",
            "image": plan.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["pvmigrate"],
            "args": plan.task.args(),
            // What ends before it can report, says why in its output.
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": security,
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        }],
        "volumes": volumes,
    });
    spec["containers"][0][if plan.is_block { "volumeDevices" } else { "volumeMounts" }] = json!(places);
    follow(&mut spec, &plan.like);
    if let Some(node) = &plan.node {
        // By name, not by the label hostname, which may differ; and through the scheduler, which binds volumes.
        bind_to(&mut spec, node);
    }
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": plan.name,
            "namespace": plan.namespace,
            "labels": labels(&plan.run),
            "annotations": annotations(),
        },
        "spec": spec,
    });
    pod["metadata"]["labels"]["pvmigrate.io/task"] = plan.task.word().into();
    pod["metadata"]["labels"]["pvmigrate.io/pass"] = plan.task.pass().into();
    merge(&mut pod, &plan.patch);
    pod
}

/// The labels of all pods of a run.
pub(super) fn labels(run: &str) -> Json {
    json!({
        "app.kubernetes.io/name": "pvmigrate", "app.kubernetes.io/managed-by": "pvmigrate",
        RUN: run, "sidecar.istio.io/inject": "false",
    })
}

/// Nobody moves them away, nobody puts containers of his own beside them.
pub(super) fn annotations() -> Json {
    json!({
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true",
        "sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled",
    })
}

/// Merges a patch of the user's; the one container is met by place, as a merge would replace the whole list.
pub(super) fn merge(pod: &mut Json, patch: &Json) {
    let mut patch = patch.clone();
    // To merge anything but a map would replace the whole pod.
    if !patch.is_object() {
        return;
    }
    if let Some(Json::Array(containers)) =
        patch.get_mut("spec").and_then(Json::as_object_mut).and_then(|spec| spec.remove("containers"))
    {
        for container in &containers {
            json_patch::merge(&mut pod["spec"]["containers"][0], container);
        }
    }
    json_patch::merge(pod, &patch);
}

/// Takes over what decides where a pod of the workload may run and what it may read.
fn follow(spec: &mut Json, like: &Json) {
    for field in ["tolerations", "nodeSelector", "imagePullSecrets", "schedulerName", "priorityClassName"] {
        if !like[field].is_null() {
            spec[field] = like[field].clone();
        }
    }
    let required = &like["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    if required.is_object() {
        spec["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
    }
    // The labels of SELinux must fit, or the mount would be relabelled under the workload's hands.
    let selinux =
        [&like["securityContext"]["seLinuxOptions"], &like["containers"][0]["securityContext"]["seLinuxOptions"]];
    if let Some(options) = selinux.into_iter().find(|options| options.is_object()) {
        spec["securityContext"]["seLinuxOptions"] = options.clone();
    }
}

fn bind_to(spec: &mut Json, node: &str) {
    let rule = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    let required = &mut spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    match required["nodeSelectorTerms"].as_array_mut() {
        // Terms are alternatives: the node belongs into each.
        Some(terms) if !terms.is_empty() => {
            for term in terms {
                match term["matchFields"].as_array_mut() {
                    Some(fields) => fields.push(rule.clone()),
                    None => term["matchFields"] = json!([rule]),
                }
            }
        }
        _ => *required = json!({"nodeSelectorTerms": [{"matchFields": [rule]}]}),
    }
}

/// What a patch may say about the container.
const CONTAINER: [&str; 3] = ["resources", "env", "imagePullPolicy"];

/// Checks a patch of the user's: it may say how the pod runs, not what it does to the volumes.
///
/// # Errors
/// If it touches what the safety of the copy rests on.
pub fn check_patch(patch: &Json) -> Result<(), Problem> {
    let refuse = |what: &str| {
        Err(Problem::usage(format!("the pod patch must not change {what}"))
            .hint("it may set resources, tolerations, priority, labels, pull secrets, runtime class and the like"))
    };
    if !patch.is_null() && !patch.is_object() {
        return Err(Problem::usage("the pod patch is not a map").hint("write it as part of a Pod: {spec: {…}}"));
    }
    for part in ["/metadata", "/spec", "/metadata/labels", "/metadata/annotations"] {
        if patch.pointer(part).is_some_and(|value| !value.is_object()) {
            return refuse(&format!("all of {}: it is not a map", part.trim_start_matches('/').replace('/', ".")));
        }
    }
    for (pointer, what) in [
        ("/metadata/name", "the pod's name"),
        ("/metadata/namespace", "the pod's namespace"),
        ("/spec/volumes", "the volumes"),
        ("/spec/restartPolicy", "the restart policy"),
        ("/spec/nodeName", "the node: the scheduler must bind the volumes"),
    ] {
        if patch.pointer(pointer).is_some() {
            return refuse(what);
        }
    }
    let containers = patch.pointer("/spec/containers");
    let is_ours = |container: &Json| {
        container.as_object().is_some_and(|fields| fields.keys().all(|key| CONTAINER.contains(&key.as_str())))
    };
    if containers.is_some_and(|list| !matches!(list.as_array().map(Vec::as_slice), Some([one]) if is_ours(one))) {
        return refuse(&format!("the containers, but for {} of the one that there is", CONTAINER.join(", ")));
    }
    for map in ["labels", "annotations"] {
        let touched =
            patch["metadata"][map].as_object().into_iter().flatten().any(|(key, _)| key.starts_with("pvmigrate.io/"));
        if touched {
            return refuse("labels or annotations of pvmigrate.io");
        }
    }
    if !text(patch, "/spec/securityContext/fsGroup").is_empty()
        || patch.pointer("/spec/securityContext/fsGroup").is_some()
    {
        return refuse("fsGroup: the kubelet would change owners in both volumes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::waive::Kind;
    use super::*;

    fn plan() -> PodPlan {
        PodPlan {
            name: "data-copy-1".into(),
            namespace: "shop".into(),
            run: "0123abcd".into(),
            task: Task::Copy {
                last: true,
                since: Some("2026-11-21T04:00:00Z".into()),
                since_end: Some("2026-11-21T04:05:00Z".into()),
                allow_empty: false,
                how: How::default(),
                proof: None,
            },
            image: "docker.io/pvmigrate/agent:0.1.0".into(),
            source: Some("data".into()),
            target: Some("data-pvmigrate-1".into()),
            is_block: false,
            node: Some("node2".into()),
            like: json!({
                "tolerations": [{"key": "disk", "operator": "Exists"}],
                "nodeSelector": {"zone": "a"},
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "cpu", "operator": "In", "values": ["x"]}]}]}}, "podAntiAffinity": {"x": 1}},
                "securityContext": {"fsGroup": 1000, "seLinuxOptions": {"level": "s0:c1,c2"}},
                "volumes": [{"name": "evil"}],
            }),
            run_as: None,
            patch: Json::Null,
        }
    }

    fn all() -> Compare {
        Compare { mode: "full".into(), since: None }
    }

    #[test]
    fn the_copy_pod_is_as_it_was_agreed() {
        insta::assert_yaml_snapshot!("copy_pod", render(&plan()));
    }

    #[test]
    fn what_is_asked_for_is_said_by_name() {
        let args = |engine: Option<&str>, allow_empty: bool| {
            let (since, since_end, engine) = (Some("T".into()), Some("E".into()), engine.map(str::to_owned));
            let (workers, bandwidth) = (allow_empty.then_some(7), allow_empty.then(|| "50Mi".to_owned()));
            let waive = if allow_empty { Waive::of([Kind::Xattr, Kind::Acl]) } else { Waive::NOTHING };
            let how = How { engine, workers, bandwidth, waive, cloned: allow_empty };
            let proof = allow_empty.then(|| Compare { mode: "changed".into(), since: Some("V".into()) });
            Task::Copy { last: false, since, since_end, allow_empty, how, proof }.args().join(" ")
        };
        let rest = "--since T --since-end E";
        assert_eq!(args(None, false), format!("agent copy /source /target --pass hot {rest}"));
        assert_eq!(args(Some("rsync"), false), format!("agent copy /source /target --pass hot --engine rsync {rest}"));
        let all = "--workers 7 --bandwidth-limit 50Mi --cloned --allow-empty --waive acl,xattr --verify changed --verified-since V";
        assert_eq!(args(None, true), format!("agent copy /source /target --pass hot {all} {rest}"));
    }

    #[test]
    fn totals_are_said_if_they_are_known() {
        let args = |totals| {
            Task::Verify { last: true, what: all(), totals, workers: None, waive: Waive::NOTHING }.args().join(" ")
        };
        let plain = "agent verify /source /target --mode full";
        assert_eq!(args(None), plain);
        assert_eq!(args(Some([3, 70])), format!("{plain} --files-total 3 --bytes-total 70"));
    }

    #[test]
    fn what_can_be_done_with_one_thread_is_done_with_one() {
        let copy = |engine: Option<&str>, workers| {
            let how = How { engine: engine.map(str::to_owned), workers, ..How::default() };
            Task::Copy { last: true, since: None, since_end: None, allow_empty: false, how, proof: Some(all()) }
        };
        let waive = Waive::of([Kind::Owner]);
        let verify = |workers| Task::Verify { last: true, what: all(), totals: None, workers, waive };
        for (task, wanted) in [
            (Task::Reserve, None),
            (Task::Sync, None),
            (copy(None, None), Some(copy(None, Some(1)))),
            (copy(None, Some(8)), Some(copy(None, Some(1)))),
            (copy(None, Some(1)), None),
            (copy(Some("rsync"), None), None),
            (verify(None), Some(verify(Some(1)))),
            (verify(Some(1)), None),
        ] {
            assert_eq!(task.on_one_thread(), wanted, "{task:?}");
        }
        assert!(verify(Some(1)).args().join(" ").ends_with("--mode full --workers 1 --waive owner"));
    }

    #[test]
    fn the_verify_pod_changes_nothing() {
        let task = Task::Verify { last: true, what: all(), totals: None, workers: None, waive: Waive::NOTHING };
        let pod = render(&PodPlan { task, run_as: Some(1000), node: None, like: Json::Null, ..plan() });
        insta::assert_yaml_snapshot!("verify_pod", pod);
        let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().all(|mount| mount["readOnly"] == true));
    }

    #[test]
    fn the_sync_pod_has_nothing_but_the_source_and_only_reads_it() {
        let pod = render(&PodPlan { task: Task::Sync, target: None, ..plan() });
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["args"], json!(["agent", "sync", SOURCE]));
        assert_eq!(container["volumeMounts"], json!([{"name": "source", "mountPath": SOURCE, "readOnly": true}]));
        assert_eq!(pod["spec"]["volumes"], json!([{"name": "source", "persistentVolumeClaim": {"claimName": "data"}}]));
    }

    #[test]
    fn devices_are_where_directories_would_be() {
        let pod = render(&PodPlan { is_block: true, ..plan() });
        let container = &pod["spec"]["containers"][0];
        assert!(container["volumeMounts"].is_null());
        let devices = json!([
            {"name": "source", "devicePath": SOURCE}, {"name": "target", "devicePath": TARGET},
        ]);
        assert_eq!(container["volumeDevices"], devices);
        assert_eq!(container["args"], render(&plan())["spec"]["containers"][0]["args"]);
    }

    #[test]
    fn a_patch_gives_the_one_container_more_memory() {
        let patch =
            json!({"spec": {"priorityClassName": "low", "containers": [{"resources": {"limits": {"memory": "4Gi"}}}]}});
        let (plain, patched) = (render(&plan()), render(&PodPlan { patch, ..plan() }));
        let container = &patched["spec"]["containers"][0];
        assert_eq!(container["resources"]["limits"]["memory"], "4Gi");
        assert_eq!(container["args"], plain["spec"]["containers"][0]["args"]);
        assert_eq!(patched["spec"]["priorityClassName"], "low");
    }

    #[test]
    fn a_patch_of_labels_alone_leaves_the_rest() {
        let patched = render(&PodPlan { patch: json!({"metadata": {"labels": {"site": "example"}}}), ..plan() });
        assert_eq!(patched["metadata"]["labels"]["site"], "example");
        assert_eq!(patched["spec"], render(&plan())["spec"]);
    }

    #[test]
    fn a_patch_may_not_touch_what_safety_rests_on() {
        for (patch, ok) in [
            (Json::Null, true),
            (json!({"spec": {"priorityClassName": "low", "tolerations": []}}), true),
            (json!({"metadata": {"labels": {"team": "a"}}}), true),
            (json!({"spec": {"volumes": []}}), false),
            (json!({"spec": {"containers": []}}), false),
            (json!({"spec": {"containers": [{"resources": {"limits": {"memory": "4Gi"}}}]}}), true),
            (json!({"spec": {"containers": [{"command": ["rm"]}]}}), false),
            (json!({"spec": {"containers": [{}, {}]}}), false),
            (json!({"spec": {"containers": null}}), false),
            (json!({"spec": null}), false),
            (json!({"metadata": {"labels": null}}), false),
            (json!({"spec": {"securityContext": {"fsGroup": 1}}}), false),
            (json!({"metadata": {"labels": {"pvmigrate.io/run": "x"}}}), false),
            (json!([]), false),
        ] {
            assert_eq!(check_patch(&patch).is_ok(), ok, "{patch}");
        }
    }
}
