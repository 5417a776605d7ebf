//! Everything that speaks against moving a unit, found before anything is changed, all at once. Pure, but for the reads
//! at the end.

use super::pv::{Backend, Pv};
use super::pvc::Pvc;
use super::units::{Population, Unit, ours};
use super::workload::{self, controller, is_scalable};
use super::{Cluster, is_storage_finalizer, known, text, uid};
use crate::words::{Json, ObjectRef, Problem, RunId};
use serde::{Deserialize, Serialize};

/// One reason, with what to do about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    pub unit: String,
    /// `Kind:ns/name` of what stands in the way.
    pub object: String,
    pub reason: String,
    pub hint: String,
}

/// What the unit is to become.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub finished_pods: bool,
    /// The volumes stay: nothing is read or written on them.
    pub stays: bool,
}

/// Judges one unit. `volumes` are all volumes of the cluster; `namespace` is the unit's own.
pub fn judge(
    run: &RunId,
    unit: &Unit,
    all: &Population,
    volumes: &[Json],
    namespace: &Json,
    wanted: &Wanted,
) -> Vec<Refusal> {
    let mut found = Findings { unit: unit.key.clone(), list: Vec::new() };
    if !text(namespace, "/metadata/deletionTimestamp").is_empty() {
        found.add(
            &workload::reference(namespace),
            "the namespace is being deleted",
            "leave it out: --exclude-namespace",
        );
    }
    for claim in &unit.claims {
        judge_claim(&mut found, run, Pvc(claim), volumes, all);
    }
    for object in &unit.workloads {
        judge_workload(&mut found, run, object, all);
    }
    for pod in &unit.bare {
        if is_finished(pod) {
            continue;
        }
        found.add(
            &workload::reference(pod),
            "it is a pod without a controller: nothing would start it again",
            "delete it yourself, or leave its claims out: --exclude NS/NAME",
        );
    }
    for owner in &unit.foreign {
        found.list.push(Refusal {
            unit: found.unit.clone(),
            object: owner.clone(),
            reason: "an operator owns the pods: it would start them again".into(),
            hint: "stop it through its own resource first, or leave its claims out: --exclude NS/NAME".into(),
        });
    }
    if !wanted.finished_pods {
        for pod in unit.pods.iter().filter(|pod| is_finished(pod) && !ours(pod)) {
            found.add(
                &workload::reference(pod),
                "it is finished, but holds its claim as long as it exists",
                "delete it, or let it be deleted: --finished-pods delete",
            );
        }
    }
    found.list
}

struct Findings {
    unit: String,
    list: Vec<Refusal>,
}

impl Findings {
    fn add(&mut self, object: &ObjectRef, reason: &str, hint: &str) {
        self.list.push(Refusal {
            unit: self.unit.clone(),
            object: object.to_string(),
            reason: reason.into(),
            hint: hint.into(),
        });
    }
}

fn is_finished(pod: &Json) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

const LEAVE_OUT: &str = "leave the claim out: --exclude NS/NAME";

fn judge_claim(found: &mut Findings, run: &RunId, claim: Pvc<'_>, volumes: &[Json], all: &Population) {
    let object = workload::reference(claim.0);
    if claim.is_going() {
        found.add(&object, "it is being deleted", LEAVE_OUT);
    }
    if !claim.is_bound() {
        found.add(&object, &format!("it is {}, not Bound", claim.phase()), LEAVE_OUT);
        return;
    }
    for finalizer in claim.finalizers().into_iter().filter(|finalizer| !is_storage_finalizer(finalizer)) {
        found.add(
            &object,
            &format!("it has the finalizer `{finalizer}`: it could not be replaced"),
            "ask whoever put it there",
        );
    }
    if let Some(owner) = controller(claim.0) {
        found.add(
            &object,
            &format!("{} `{}` controls it and may make it anew", text(owner, "/kind"), text(owner, "/name")),
            LEAVE_OUT,
        );
    }
    gitops(found, &object, claim.0, &all.applications);
    let Some(volume) = volumes.iter().map(Pv).find(|volume| volume.name() == claim.volume()) else {
        found.add(&object, &format!("its volume `{}` does not exist", claim.volume()), LEAVE_OUT);
        return;
    };
    judge_volume(found, run, claim, volume, volumes, all);
}

fn judge_volume(found: &mut Findings, run: &RunId, claim: Pvc<'_>, volume: Pv<'_>, volumes: &[Json], all: &Population) {
    let object = workload::reference(volume.0);
    if volume.is_going() {
        found.add(&object, "it is being deleted: its bytes go with its claim, whatever the policy", LEAVE_OUT);
    }
    if volume.claim_uid() != claim.uid() {
        found.add(&object, "its claimRef names another claim", LEAVE_OUT);
    }
    if volume.policy() == "Recycle" {
        found.add(&object, "its policy is Recycle", "change it to Retain first");
    }
    if volume.phase() == "Failed" {
        found.add(&object, "it is Failed", LEAVE_OUT);
    }
    let holder = volume.held_by();
    if !holder.is_empty() && holder != run.as_str() {
        found.add(&object, &format!("run {holder} has it in its hands"), &format!("pvmigrate resume {holder}"));
    }
    for finalizer in volume.finalizers().into_iter().filter(|finalizer| !is_storage_finalizer(finalizer)) {
        found.add(&object, &format!("it has the finalizer `{finalizer}`"), "ask whoever put it there");
    }
    let Some(backend) = volume.backend() else { return };
    for other in volumes.iter().map(Pv).filter(|other| other.name() != volume.name()) {
        if other.backend().is_some_and(|theirs| theirs.overlaps(&backend)) {
            found.add(
                &object,
                &format!("volume `{}` stands on the same backend: its users would go on writing", other.name()),
                LEAVE_OUT,
            );
        }
    }
    // A template whose pods are not there yet counts too; what a template made is told by the template.
    let pods = all.pods.iter().map(|pod| (pod, &pod["spec"]));
    let templates = all.templated.iter().filter_map(|object| Some((object, &workload::template(object)?["spec"])));
    let made = |object: &Json| {
        let owner = controller(object).map_or("", |owner| text(owner, "/uid"));
        all.templated.iter().any(|template| uid(template) == owner)
    };
    for (user, spec) in pods.chain(templates).filter(|(user, _)| !made(user)) {
        for inline in spec["volumes"].as_array().into_iter().flatten() {
            let theirs = match (text(inline, "/nfs/server"), text(inline, "/nfs/path"), text(inline, "/hostPath/path"))
            {
                ("", _, "") => continue,
                ("", _, path) => Backend::Path(path.to_owned()),
                (server, path, _) => Backend::Nfs(server.to_owned(), path.to_owned()),
            };
            if theirs.overlaps(&backend) {
                found.add(
                    &workload::reference(user),
                    &format!("it mounts the backend of volume `{}` directly", volume.name()),
                    LEAVE_OUT,
                );
            }
        }
    }
}

fn judge_workload(found: &mut Findings, run: &RunId, object: &Json, all: &Population) {
    let reference = workload::reference(object);
    if let Some(holder) = workload::other_holder(object, run) {
        found.add(&reference, &format!("run {holder} has it in its hands"), &format!("pvmigrate resume {holder}"));
    }
    let kind = reference.kind.as_str();
    if !is_scalable(kind) {
        let reason = match kind {
            "DaemonSet" => "DaemonSets cannot be stopped yet",
            "Job" => "Jobs cannot be stopped yet: wait until it is done and remove it",
            "CronJob" => "CronJobs cannot be suspended yet: it may fire at any time",
            "ReplicaSet" | "ReplicationController" => "ReplicaSets without a Deployment cannot be stopped yet",
            _ => "this kind cannot be stopped",
        };
        found.add(&reference, reason, "leave its claims out: --exclude NS/NAME, or all such units: --on-refusal skip");
        return;
    }
    if !text(object, "/metadata/deletionTimestamp").is_empty() {
        found.add(&reference, "it is being deleted", "leave its claims out: --exclude NS/NAME");
    }
    if text(object, "/spec/persistentVolumeClaimRetentionPolicy/whenScaled") == "Delete" {
        found.add(
            &reference,
            "it deletes its claims when it is scaled down (persistentVolumeClaimRetentionPolicy.whenScaled)",
            "set whenScaled to Retain first",
        );
    }
    gitops(found, &reference, object, &all.applications);
    for scaler in &all.autoscalers {
        let scaled = &scaler["spec"]["scaleTargetRef"];
        let target_kind = match text(scaled, "/kind") {
            "" => "Deployment",
            kind => kind,
        };
        let same = text(scaler, "/metadata/namespace") == reference.namespace
            && text(scaled, "/name") == reference.name
            && target_kind == reference.kind;
        if !same {
            continue;
        }
        if text(scaler, "/kind") == "ScaledObject" {
            if !is_paused(scaler) {
                let name = text(scaler, "/metadata/name");
                found.add(
                    &reference,
                    &format!("KEDA's ScaledObject `{name}` would start it again"),
                    &format!(
                        "pause it for the time being: kubectl -n {} annotate scaledobject {name} autoscaling.keda.sh/paused=true",
                        reference.namespace
                    ),
                );
            }
        } else if scaler["spec"]["minReplicas"] == 0 {
            found.add(
                &reference,
                &format!("the HorizontalPodAutoscaler `{}` scales it from 0", text(scaler, "/metadata/name")),
                "set its minReplicas to 1 or more first",
            );
        }
    }
}

/// True if KEDA itself says so. `paused-replicas` is no pause for us: KEDA goes on setting that very number.
fn is_paused(scaler: &Json) -> bool {
    let note = |key: &str| scaler["metadata"]["annotations"][key].as_str();
    let mut conditions = scaler["status"]["conditions"].as_array().into_iter().flatten();
    note("autoscaling.keda.sh/paused") == Some("true")
        && note("autoscaling.keda.sh/paused-replicas").is_none()
        && conditions.any(|condition| condition["type"] == "Paused" && condition["status"] == "True")
}

/// Managers that put back what we change, told by the marks that they leave and by their own lists.
fn gitops(found: &mut Findings, reference: &ObjectRef, object: &Json, applications: &[Json]) {
    let label = |key: &str| object["metadata"]["labels"][key].as_str().unwrap_or_default();
    let note = |key: &str| object["metadata"]["annotations"][key].as_str().unwrap_or_default();
    let off = |value: &str| value == "disabled";
    if !label("kustomize.toolkit.fluxcd.io/name").is_empty() && !off(note("kustomize.toolkit.fluxcd.io/reconcile")) {
        found.add(
            reference,
            &format!("Flux reconciles it (Kustomization `{}`)", label("kustomize.toolkit.fluxcd.io/name")),
            "annotate it kustomize.toolkit.fluxcd.io/reconcile=disabled for the time being",
        );
    }
    if !label("helm.toolkit.fluxcd.io/name").is_empty() && !off(note("helm.toolkit.fluxcd.io/driftDetection")) {
        found.add(
            reference,
            &format!("Flux's HelmRelease `{}` may correct its drift", label("helm.toolkit.fluxcd.io/name")),
            "annotate it helm.toolkit.fluxcd.io/driftDetection=disabled for the time being",
        );
    }
    let tracking = note("argocd.argoproj.io/tracking-id");
    let instance = label("argocd.argoproj.io/instance");
    // A tracking id that names another object is a copy's: Argo ignores it.
    let own = tracking.rsplit(':').next().is_some_and(|tail| tail.ends_with(&format!("/{}", reference.name)));
    let application = if !instance.is_empty() {
        Some(instance)
    } else if !tracking.is_empty() && own {
        tracking.split(':').next()
    } else {
        let its = applications.iter().find(|application| manages(application, reference, object));
        its.map(|application| text(application, "/metadata/name"))
    };
    if let Some(application) = application {
        found.add(
            reference,
            &format!("Argo CD's application `{application}` syncs it"),
            "this version cannot pause it: leave its claims out: --exclude NS/NAME, or all such units: --on-refusal skip",
        );
    }
}

/// True if an Application lists the object among its own, as it does with every kind of tracking.
fn manages(application: &Json, reference: &ObjectRef, object: &Json) -> bool {
    let group = workload::gvk_of(object).group;
    application["status"]["resources"].as_array().into_iter().flatten().any(|resource| {
        let here = match text(resource, "/namespace") {
            "" => text(application, "/spec/destination/namespace"),
            namespace => namespace,
        };
        text(resource, "/group") == group
            && text(resource, "/kind") == reference.kind
            && text(resource, "/name") == reference.name
            && here == reference.namespace
    })
}

impl Cluster {
    /// Judges units by what the cluster holds now.
    ///
    /// # Errors
    /// If something cannot be read: a unit is never let pass unseen.
    pub async fn preflight(&self, run: &RunId, units: &[Unit], wanted: &Wanted) -> Result<Vec<Refusal>, Problem> {
        let namespaces = units.iter().map(|unit| unit.namespace.clone()).collect();
        let mut all = self.population(&namespaces).await?;
        let look = |e: super::Error| e.problem("look before moving", None);
        let volumes = self.list_all(&known("PersistentVolume"), "").await.map_err(look)?;
        let claims = self.list_all(&known("PersistentVolumeClaim"), "").await.map_err(look)?;
        // A server of NFS is everybody's: pods of other namespaces may mount the directory by themselves.
        let is_moved =
            |volume: &Pv| units.iter().flat_map(|unit| &unit.claims).any(|c| Pvc(c).volume() == volume.name());
        if volumes.iter().map(Pv).any(|volume| matches!(volume.backend(), Some(Backend::Nfs(..))) && is_moved(&volume))
        {
            all.pods = self.list_all(&known("Pod"), "").await.map_err(look)?;
        }
        let mut refusals = Vec::new();
        for unit in units {
            let namespace =
                self.find(&known("Namespace"), "", &unit.namespace).await.map_err(look)?.unwrap_or_default();
            // The unit as it is now, not as it was when the script looked.
            let fresh: Vec<Json> = unit
                .claims
                .iter()
                .map(|was| claims.iter().find(|claim| uid(claim) == uid(was)).cloned().unwrap_or_else(|| was.clone()))
                .collect();
            let mut now = super::units::units(&fresh, &all);
            let mut unit_now = now.pop().unwrap_or_else(|| unit.clone());
            for more in now {
                unit_now.claims.extend(more.claims);
                unit_now.workloads.extend(more.workloads);
                unit_now.pods.extend(more.pods);
                unit_now.bare.extend(more.bare);
                unit_now.foreign.extend(more.foreign);
            }
            unit_now.key.clone_from(&unit.key);
            for gone in unit.claims.iter().filter(|was| !claims.iter().any(|claim| uid(claim) == uid(was))) {
                refusals.push(Refusal {
                    unit: unit.key.clone(),
                    object: workload::reference(gone).to_string(),
                    reason: "it was deleted meanwhile".into(),
                    hint: "run again".into(),
                });
            }
            refusals.extend(judge(run, &unit_now, &all, &volumes, &namespace, wanted));
        }
        Ok(refusals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim() -> Json {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "shop", "uid": "c1"},
            "spec": {"volumeName": "pv-1"}, "status": {"phase": "Bound"}})
    }

    fn volume() -> Json {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-1", "uid": "v1"},
            "spec": {"claimRef": {"namespace": "shop", "name": "data", "uid": "c1"}, "hostPath": {"path": "/x"}, "persistentVolumeReclaimPolicy": "Delete"},
            "status": {"phase": "Bound"}})
    }

    fn web() -> Json {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop", "uid": "w"},
            "spec": {"template": {"spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}}}})
    }

    fn with(mut object: Json, pointer: &str, value: Json) -> Json {
        let mut patch = value;
        for part in pointer.split('/').filter(|part| !part.is_empty()).rev() {
            patch = json!({part.replace("~1", "/"): patch});
        }
        json_patch::merge(&mut object, &patch);
        object
    }

    fn reasons(claim: &Json, volumes: &[Json], templated: &[Json], pods: &[Json], autoscalers: &[Json]) -> Vec<String> {
        let all = Population {
            pods: pods.to_vec(),
            templated: templated.to_vec(),
            autoscalers: autoscalers.to_vec(),
            ..Population::default()
        };
        let unit = super::super::units::units(std::slice::from_ref(claim), &all).remove(0);
        let run = RunId::parse("0123abcd").unwrap();
        judge(
            &run,
            &unit,
            &all,
            volumes,
            &json!({"kind": "Namespace", "metadata": {"name": "shop"}}),
            &Wanted::default(),
        )
        .into_iter()
        .map(|refusal| format!("{}: {}", refusal.object, refusal.reason))
        .collect()
    }

    #[test]
    fn a_plain_unit_passes() {
        assert_eq!(reasons(&claim(), &[volume()], &[web()], &[], &[]), Vec::<String>::new());
    }

    #[test]
    fn each_obstacle_is_named() {
        let pod = |name: &str, phase: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}, "status": {"phase": phase}})
        };
        let owned = json!([{"kind": "Postgres", "name": "pg", "uid": "x", "controller": true}]);
        let kind = |kind: &str| with(with(web(), "/kind", json!(kind)), "/metadata/name", json!("x"));
        let inline = |kind: &str| {
            let spec = json!({"volumes": [{"hostPath": {"path": "/x/sub"}}]});
            let spec = if kind == "Pod" { spec } else { json!({"template": {"spec": spec}}) };
            json!({"kind": kind, "metadata": {"name": "backup", "namespace": "shop", "uid": "b"}, "spec": spec})
        };
        for (want, claim, volumes, templated, pods, scalers) in [
            (
                "is being deleted",
                with(claim(), "/metadata/deletionTimestamp", json!("now")),
                vec![volume()],
                vec![],
                vec![],
                vec![],
            ),
            ("not Bound", with(claim(), "/status/phase", json!("Pending")), vec![volume()], vec![], vec![], vec![]),
            (
                "finalizer `a.io/b`",
                with(claim(), "/metadata/finalizers", json!(["a.io/b"])),
                vec![volume()],
                vec![],
                vec![],
                vec![],
            ),
            (
                "controls it and may make it anew",
                with(claim(), "/metadata/ownerReferences", owned.clone()),
                vec![volume()],
                vec![],
                vec![],
                vec![],
            ),
            ("does not exist", claim(), vec![], vec![], vec![], vec![]),
            (
                "whatever the policy",
                claim(),
                vec![with(volume(), "/metadata/deletionTimestamp", json!("now"))],
                vec![],
                vec![],
                vec![],
            ),
            (
                "names another claim",
                claim(),
                vec![with(volume(), "/spec/claimRef/uid", json!("zz"))],
                vec![],
                vec![],
                vec![],
            ),
            (
                "Recycle",
                claim(),
                vec![with(volume(), "/spec/persistentVolumeReclaimPolicy", json!("Recycle"))],
                vec![],
                vec![],
                vec![],
            ),
            ("is Failed", claim(), vec![with(volume(), "/status/phase", json!("Failed"))], vec![], vec![], vec![]),
            (
                "in its hands",
                claim(),
                vec![with(volume(), "/metadata/annotations", json!({"pvmigrate.io/run": "ffffffff"}))],
                vec![],
                vec![],
                vec![],
            ),
            (
                "in its hands",
                claim(),
                vec![volume()],
                vec![with(web(), "/metadata/annotations", json!({"pvmigrate.io/run": "ffffffff"}))],
                vec![],
                vec![],
            ),
            (
                "same backend",
                claim(),
                vec![volume(), with(volume(), "/metadata/name", json!("pv-2"))],
                vec![],
                vec![],
                vec![],
            ),
            (
                "is being deleted",
                claim(),
                vec![volume()],
                vec![with(web(), "/metadata/deletionTimestamp", json!("now"))],
                vec![],
                vec![],
            ),
            ("DaemonSets", claim(), vec![volume()], vec![kind("DaemonSet")], vec![], vec![]),
            ("Jobs cannot", claim(), vec![volume()], vec![kind("Job")], vec![], vec![]),
            ("without a Deployment", claim(), vec![volume()], vec![kind("ReplicaSet")], vec![], vec![]),
            (
                "would start them again",
                claim(),
                vec![volume()],
                vec![with(web(), "/metadata/ownerReferences", owned)],
                vec![],
                vec![],
            ),
            (
                "whenScaled",
                claim(),
                vec![volume()],
                vec![with(
                    with(web(), "/kind", json!("StatefulSet")),
                    "/spec/persistentVolumeClaimRetentionPolicy/whenScaled",
                    json!("Delete"),
                )],
                vec![],
                vec![],
            ),
            (
                "Flux reconciles",
                claim(),
                vec![volume()],
                vec![with(web(), "/metadata/labels", json!({"kustomize.toolkit.fluxcd.io/name": "apps"}))],
                vec![],
                vec![],
            ),
            (
                "HelmRelease",
                claim(),
                vec![volume()],
                vec![with(web(), "/metadata/labels", json!({"helm.toolkit.fluxcd.io/name": "apps"}))],
                vec![],
                vec![],
            ),
            (
                "Argo CD",
                claim(),
                vec![volume()],
                vec![with(
                    web(),
                    "/metadata/annotations",
                    json!({"argocd.argoproj.io/tracking-id": "app:apps/Deployment:shop/web"}),
                )],
                vec![],
                vec![],
            ),
            ("without a controller", claim(), vec![volume()], vec![], vec![pod("lone", "Running")], vec![]),
            ("it is finished", claim(), vec![volume()], vec![], vec![pod("done", "Succeeded")], vec![]),
            (
                "KEDA",
                claim(),
                vec![volume()],
                vec![web()],
                vec![],
                vec![
                    json!({"kind": "ScaledObject", "metadata": {"name": "k", "namespace": "shop"}, "spec": {"scaleTargetRef": {"name": "web"}}}),
                ],
            ),
            (
                "`nightly` syncs it",
                with(claim(), "/metadata/labels", json!({"argocd.argoproj.io/instance": "nightly"})),
                vec![volume()],
                vec![],
                vec![],
                vec![],
            ),
            ("directly", claim(), vec![volume()], vec![inline("Deployment")], vec![], vec![]),
            ("directly", claim(), vec![volume()], vec![], vec![inline("Pod")], vec![]),
            (
                "scales it from 0",
                claim(),
                vec![volume()],
                vec![web()],
                vec![],
                vec![
                    json!({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "h", "namespace": "shop"}, "spec": {"minReplicas": 0, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}}),
                ],
            ),
        ] {
            let got = reasons(&claim, &volumes, &templated, &pods, &scalers);
            assert!(got.len() == 1 && got[0].contains(want), "{want}: {got:?}");
        }
    }

    #[test]
    fn what_is_paused_or_a_copy_passes() {
        for object in [
            with(
                with(web(), "/metadata/labels", json!({"kustomize.toolkit.fluxcd.io/name": "apps"})),
                "/metadata/annotations",
                json!({"kustomize.toolkit.fluxcd.io/reconcile": "disabled"}),
            ),
            with(
                web(),
                "/metadata/annotations",
                json!({"argocd.argoproj.io/tracking-id": "app:apps/Deployment:other/elsewhere"}),
            ),
        ] {
            assert_eq!(reasons(&claim(), &[volume()], &[object], &[], &[]), Vec::<String>::new());
        }
        let hpa = json!({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "h", "namespace": "shop"}, "spec": {"minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}});
        assert_eq!(reasons(&claim(), &[volume()], &[web()], &[], &[hpa]), Vec::<String>::new());
    }
    #[test]
    fn only_what_keda_itself_calls_paused_is_paused() {
        let told = json!([{"type": "Paused", "status": "True"}]);
        for (notes, conditions, passes) in [
            (json!({}), json!([]), false),
            (json!({"autoscaling.keda.sh/paused": "true"}), told.clone(), true),
            (json!({"autoscaling.keda.sh/paused": "true"}), json!([{"type": "Paused", "status": "False"}]), false),
            // An old KEDA does not know the annotation.
            (json!({"autoscaling.keda.sh/paused": "true"}), json!([]), false),
            (json!({"autoscaling.keda.sh/paused-replicas": "3"}), told.clone(), false),
            (json!({"autoscaling.keda.sh/paused": "true", "autoscaling.keda.sh/paused-replicas": "3"}), told, false),
        ] {
            let scaled = json!({"kind": "ScaledObject", "metadata": {"name": "k", "namespace": "shop", "annotations": notes},
                "spec": {"scaleTargetRef": {"name": "web"}}, "status": {"conditions": conditions}});
            let got = reasons(&claim(), &[volume()], &[web()], &[], std::slice::from_ref(&scaled));
            assert_eq!(got.is_empty(), passes, "{scaled}: {got:?}");
        }
    }

    #[test]
    fn argo_cd_is_known_by_its_own_list_too() {
        let listed = |resource: Json| {
            let destination = json!({"destination": {"namespace": "shop"}});
            json!({"kind": "Application", "metadata": {"name": "shop", "namespace": "argocd"}, "spec": destination,
                "status": {"resources": [resource]}})
        };
        let web_of =
            |namespace: &str| json!({"group": "apps", "kind": "Deployment", "namespace": namespace, "name": "web"});
        for (resource, refused) in [
            (web_of("shop"), true),
            (json!({"group": "apps", "kind": "Deployment", "name": "web"}), true),
            (web_of("other"), false),
            (json!({"group": "", "kind": "PersistentVolumeClaim", "namespace": "shop", "name": "logs"}), false),
            (json!({"kind": "PersistentVolumeClaim", "namespace": "shop", "name": "data"}), true),
        ] {
            let all = Population {
                templated: vec![web()],
                applications: vec![listed(resource.clone())],
                ..Population::default()
            };
            let unit = super::super::units::units(&[claim()], &all).remove(0);
            let run = RunId::parse("0123abcd").unwrap();
            let namespace = json!({"kind": "Namespace", "metadata": {"name": "shop"}});
            let got = judge(&run, &unit, &all, &[volume()], &namespace, &Wanted::default());
            assert_eq!(got.len(), usize::from(refused), "{resource}: {got:?}");
            assert!(got.iter().all(|refusal| refusal.reason.contains("application `shop`")), "{got:?}");
        }
    }
}
