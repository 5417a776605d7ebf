//! One lab with a small shop, and runs of sc-migrate in it, under the eyes of the oracle.

use super::oracle::Oracle;
use crate::mutants::{At, Mutation};
use crate::world::Digest;
use pvmigrate::journal::StepId;
use pvmigrate::lab::Lab;
use pvmigrate::lab::faults::{Fault, Faults};
use pvmigrate::lab::kubelet::{Image, Images};
use pvmigrate::lab::scenario::Scenario;
use pvmigrate::lab::store::{Key, State, text};
use pvmigrate::script::Script;
use pvmigrate::trial::stage::{Notes, RUN_WITHIN, TakeBack};
use pvmigrate::trial::{Doom, Picture, Play, Stage};
use pvmigrate::words::voice::Mute;
use pvmigrate::words::{Problem, RunId};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What is moved: one claim and the workload that uses it.
#[derive(Debug)]
pub struct Shop {
    yaml: &'static str,
    pub kind: &'static str,
    pub workload: &'static str,
    pub claim: &'static str,
    /// How it is moved.
    pub engine: &'static str,
    /// What it is called in the end, if its volume is handed over to a claim of another name; then no engine does it.
    pub becomes: Option<&'static str>,
    /// A file so large, though there is nothing in it, that a hot pass is followed by another; and both by a comparison.
    pub has_much: bool,
}

pub const WEB: Shop = Shop {
    yaml: include_str!("../../scenarios/crash.yaml"),
    kind: "Deployment",
    workload: "web",
    claim: "data",
    engine: "native",
    becomes: None,
    has_much: false,
};
/// The same whose every line is acknowledged.
pub const ACKED: Shop = Shop { yaml: include_str!("../../scenarios/crash-acks.yaml"), ..WEB };
/// The same with a StatefulSet, which makes its claim anew by itself.
pub const DB: Shop = Shop {
    yaml: include_str!("../../scenarios/crash-set.yaml"),
    kind: "StatefulSet",
    workload: "db",
    claim: "data-db-0",
    engine: "native",
    becomes: None,
    has_much: false,
};
/// The same in which there is more to do while it runs.
pub const LARGE: Shop = Shop { has_much: true, ..ACKED };
/// The same two where the volume stays, and only its class is another.
pub const STAYS: Shop = Shop { engine: "relabel", ..ACKED };
pub const TWO_STAY: Shop = Shop { yaml: include_str!("../../scenarios/crash-two.yaml"), ..STAYS };
/// The same whose volume is cloned by its driver, and where that makes no clones.
pub const CLONED: Shop = Shop { yaml: include_str!("../../scenarios/crash-clone.yaml"), engine: "clone", ..ACKED };
pub const NOT_CLONED: Shop =
    Shop { yaml: include_str!("../../scenarios/crash-no-clone.yaml"), engine: "auto", ..ACKED };
pub const DB_STAYS: Shop = Shop { engine: "relabel", ..DB };
/// The same whose claim gets another name.
pub const RENAMED: Shop = Shop { becomes: Some("data-2"), ..ACKED };

impl Shop {
    /// What the claim is called now.
    pub fn called(&self, lab: &Lab) -> &'static str {
        let is_there =
            |name: &&str| lab.core().look(|state| state.get("PersistentVolumeClaim", "shop", name).is_some());
        self.becomes.filter(is_there).unwrap_or(self.claim)
    }
}

const HAND_OVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/hand-over.rhai");

pub(super) const RUN: &str = "01234567";

pub struct Trial {
    oracle: Arc<Mutex<Oracle>>,
    pub shop: &'static Shop,
    faults: Mutex<Option<Faults>>,
    stopped: Mutex<Option<Problem>>,
    /// The rows of the last run's table.
    told: Mutex<Vec<Value>>,
    stage: Stage,
    run: RunId,
    dir: tempfile::TempDir,
}

/// Everything that is compared.
pub type End = Picture;

impl Trial {
    pub fn new() -> Trial {
        Trial::of(&WEB)
    }

    pub fn of(shop: &'static Shop) -> Trial {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let program = PathBuf::from(env!("CARGO_BIN_EXE_pvmigrate"));
        let image = Image { programs: vec![("pvmigrate".to_owned(), program)] };
        let images = Images { by_name: [("docker.io/pvmigrate/agent*".to_owned(), image)].into() };
        let scenario = Scenario::parse("crash.yaml", shop.yaml).expect("it is tested");
        let stage = Stage::open(dir.path(), images, &scenario, 7).expect("the shop opens");
        if shop.has_much {
            let volume = stage.lab.volume_of("shop", shop.claim, Duration::from_secs(10)).expect("it is bound");
            let file = std::fs::File::create(volume.join("much")).expect("there is room");
            file.set_len(300 << 20).expect("it takes none");
        }
        let oracle = Arc::new(Mutex::new(Oracle::new(&stage.lab, shop)));
        let hook = oracle.clone();
        stage.lab.core().hook(Box::new(move |state, commit| hook.lock().unwrap().commit(state, commit)));
        let run = serde_json::from_value(Value::from(RUN)).expect("it is an id");
        Trial {
            oracle,
            shop,
            faults: Mutex::default(),
            stopped: Mutex::default(),
            told: Mutex::default(),
            stage,
            run,
            dir,
        }
    }

    /// One whose journals are kept in the cluster itself.
    pub fn in_cluster() -> Trial {
        let mut trial = Trial::new();
        trial.stage.in_cluster = true;
        trial
    }

    /// How many bytes of records a run has in the cluster.
    pub fn bytes_kept(&self) -> usize {
        let of_run = |key: &Key| key.name.starts_with(&format!("pvmigrate-{RUN}-")) && !key.name.contains("-t");
        self.lab().core().look(|state| {
            let maps = state.list("ConfigMap", "").filter(|(key, _)| of_run(key));
            let texts = maps.flat_map(|(_, map)| map["data"].as_object().into_iter().flat_map(|data| data.values()));
            texts.filter_map(Value::as_str).map(str::len).sum()
        })
    }

    /// A mutant acts in the runs from now on.
    pub fn change(&mut self, mutation: &Arc<Mutation>) {
        self.stage.between = Some(Arc::new(At(mutation.clone())));
    }

    pub fn lab(&self) -> &Lab {
        &self.stage.lab
    }

    /// What goes wrong in the runs from now on.
    pub fn plan(&self, plan: Vec<Fault>) -> Faults {
        let faults = Faults::new(self.lab(), plan);
        *self.faults.lock().unwrap() = Some(faults.clone());
        faults
    }

    /// Why the last run stopped and whether the run has changed anything, if it did stop.
    pub fn stop(&self) -> Option<(Problem, bool)> {
        let problem = self.stopped.lock().unwrap().clone()?;
        Some((problem, self.stage.journal(&self.run).expect("it can be read").has_changed()))
    }

    /// Runs until the end or the death; `resumed` goes on with the journal that is there.
    pub fn run(&self, doom: &Arc<Doom>, resumed: bool) -> Result<(), String> {
        let cancel = CancellationToken::new();
        let script = if self.shop.becomes.is_some() { HAND_OVER } else { "sc-migrate" };
        let script = Script::load(script, &cancel).expect("it is right");
        let mut args = Map::new();
        for spec in &script.options {
            args.insert(spec.name.clone(), spec.otherwise());
        }
        args.insert("source-sc".into(), "slow".into());
        args.insert("dest-sc".into(), "fast".into());
        args.insert("engine".into(), self.shop.engine.into());
        if self.shop.has_much {
            args.insert("verify".into(), "changed".into());
        }
        // What somebody else makes of the same class is none of what is moved.
        args.insert("selector".into(), "!thief".into());
        let args = Value::Object(args);
        let notes = Arc::new(Notes::default());
        let play = Play {
            script,
            cancel,
            args,
            branch: "root".into(),
            resumed,
            voice: notes.clone(),
            within: RUN_WITHIN,
            faults: self.faults.lock().unwrap().clone(),
        };
        let ended = self.stage.play(&self.run, doom, play).map(|_| ());
        *self.told.lock().unwrap() = notes.said().rows;
        self.judged(doom, ended)
    }

    /// Takes back what the journal has, until the end or the death.
    pub fn take_back(&self, doom: &Arc<Doom>, how: &str) -> Result<(), String> {
        self.judged(doom, self.stage.take_back(&self.run, doom, self.way(how)))
    }

    /// Takes back what came after a step.
    pub fn take_back_to(&self, doom: &Arc<Doom>, how: &str, to: &str) -> Result<(), String> {
        self.judged(doom, self.stage.take_back_to(&self.run, doom, &StepId::new(to), self.way(how)))
    }

    fn way(&self, how: &str) -> TakeBack {
        let how = ["compare", "reverse", "discard"].into_iter().find(|word| *word == how).expect("it is one of three");
        TakeBack { how, voice: Arc::new(Mute), within: RUN_WITHIN, faults: self.faults.lock().unwrap().clone() }
    }

    fn judged(&self, doom: &Doom, ended: Result<(), Problem>) -> Result<(), String> {
        *self.stopped.lock().unwrap() = ended.as_ref().err().cloned();
        let faults = doom.faults();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        ended.map_err(|problem| problem.to_string())
    }

    /// What did not hold after some commit.
    pub fn broken(&self) -> Vec<String> {
        self.oracle.lock().unwrap().broken()
    }

    /// What held after every commit, and what the requests were.
    pub fn check_always(&self) {
        let broken = self.oracle.lock().unwrap().broken();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    /// I18: a run that ended well has moved everything, and what it told is what the cluster has.
    pub fn told_the_truth(&self) -> Result<(), String> {
        // A hand-over tells no table; whether a line is lost its workload sees when it starts.
        if self.shop.becomes.is_some() {
            return Ok(());
        }
        let told = self.told.lock().unwrap().clone();
        let [row] = &told[..] else { return Err(format!("I18 one claim was to be moved, told was {told:?}")) };
        let Shop { kind, workload, claim, engine, .. } = *self.shop;
        let stays = engine == "relabel";
        let differs = |what: &str, told: &Value, is: &Value| Err(format!("I18 {what}: {told}, but is {is}"));
        let source = self.oracle.lock().unwrap().directory().to_owned();
        let files = Digest::of(&source).files.values().filter(|entry| entry.kind == "file").count();
        self.lab().core().look(|state| {
            let of = |kind: &'static str, namespace: &str, name: &str| {
                state.get(kind, namespace, name).map_or(Value::Null, |object| (**object).clone())
            };
            let is = of("PersistentVolumeClaim", "shop", claim);
            let target = of("PersistentVolume", "", text(&is["spec"]["volumeName"]));
            let old = of("PersistentVolume", "", text(&row["source"]));
            let web = of(kind, "shop", workload);
            let csi = &old["spec"]["csi"];
            let handle = format!("{} {}", text(&csi["driver"]), text(&csi["volumeHandle"]));
            for (what, told, is) in [
                ("the claim", &row["claim"], &json!(format!("shop/{claim}"))),
                ("its phase", &json!("Bound"), &is["status"]["phase"]),
                ("the new volume", &row["target"], &is["spec"]["volumeName"]),
                ("its class", &json!("fast"), &target["spec"]["storageClassName"]),
                ("its claim", &target["spec"]["claimRef"]["uid"], &is["metadata"]["uid"]),
                ("the old volume is kept", &row["source_kept"], &json!(!old.is_null())),
                (
                    "its policy",
                    &json!(if stays { "Delete" } else { "Retain" }),
                    &old["spec"]["persistentVolumeReclaimPolicy"],
                ),
                ("its handle", &row["source_handle"], &json!(handle)),
                ("its files", &row["files"], &json!(if stays { 0 } else { files })),
                ("the engine", &row["engine"], &json!(if engine == "auto" { "native" } else { engine })),
                ("Ready replicas", &web["spec"]["replicas"], &web["status"]["readyReplicas"]),
                ("the comparison", &row["verified"], &json!(if stays { "same volume" } else { "full" })),
            ] {
                if told != is {
                    return differs(what, told, is);
                }
            }
            if row["downtime_s"].as_f64().is_some_and(|seconds| seconds > 0.0 || (stays && seconds == 0.0)) {
                return Ok(());
            }
            differs("the downtime", &row["downtime_s"], &Value::Null)
        })
    }

    /// Whether the source is gone by somebody else's hand, which no run can help.
    pub fn is_source_lost(&self) -> bool {
        self.oracle.lock().unwrap().is_excused()
    }

    /// Somebody stops the workload, for good.
    pub fn stop_workload(&self) -> Result<(), String> {
        self.scale_workload(0);
        let claim = self.shop.called(self.lab());
        let is_quiet = |state: &State| state.pods_of_claim("shop", claim).next().is_none().then_some(());
        self.lab().wait(Duration::from_secs(30), is_quiet).ok_or("the workload does not stop")?;
        self.plan(Vec::new());
        Ok(())
    }

    /// Somebody says how many pods there are to be.
    pub fn scale_workload(&self, replicas: u32) {
        let Shop { kind, workload, .. } = *self.shop;
        let patch = serde_json::json!({"kind": kind, "name": workload, "body": {"spec": {"replicas": replicas}}});
        let fault = serde_json::json!({"then": {"somebody": {"patch": patch}}});
        self.plan(vec![Fault::read(fault).expect("it is a fault")]).strike();
        self.plan(Vec::new());
    }

    /// Stops the workload for good; then what it acknowledged is on the volume that its claim stands on.
    pub fn lost_nothing(&self) -> Result<(), String> {
        let claim = self.shop.called(self.lab());
        self.stop_workload()?;
        let volume = self.lab().volume_of("shop", claim, Duration::from_secs(10)).ok_or("it is not bound")?;
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pvmigrate"));
        command.args(["agent", "exercise"]).arg(volume).arg("--ack").arg(self.dir.path().join("lab/nodes/node1/acks"));
        // Every shop's workload writes under one name, which is after all that is compared.
        let output = command.args(["--name", "web", "--check"]).output().expect("it can be started");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("{}: {said}", output.status)) }
    }

    /// Takes away what somebody else did that is none of what is compared.
    pub fn clear_of_somebody(&self) {
        let labels = serde_json::json!({"metadata": {"labels": {"edited": null}}});
        let body = |kind: &str| serde_json::json!({"patch": {"kind": kind, "body": labels}});
        let thief = serde_json::json!({"delete": {"kind": "PersistentVolumeClaim", "name": "thief"}});
        for change in [body("PersistentVolume"), body("PersistentVolumeClaim"), thief] {
            let fault = serde_json::json!({"then": {"somebody": change}});
            let faults = self.plan(vec![Fault::read(fault).expect("it is a fault")]);
            faults.strike();
        }
        self.plan(Vec::new());
    }

    /// I10 and I19: nothing of ours is left on anything but the old volume.
    pub fn litter(&self) -> Vec<String> {
        self.lab().settle(Duration::from_secs(30));
        self.oracle.lock().unwrap().litter(self.lab())
    }

    pub fn end(&self) -> End {
        self.lab().settle(Duration::from_secs(30));
        self.oracle.lock().unwrap().picture(self.lab())
    }
}
