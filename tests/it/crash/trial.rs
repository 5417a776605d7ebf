//! One lab with a small shop, and runs of sc-migrate in it, under the eyes of the oracle.

use super::oracle::Oracle;
use crate::mutants::{At, Mutation};
use pvmigrate::journal::StepId;
use pvmigrate::lab::Lab;
use pvmigrate::lab::kubelet::{Image, Images};
use pvmigrate::lab::scenario::Scenario;
use pvmigrate::lab::store::Key;
use pvmigrate::script::Script;
use pvmigrate::trial::stage::{RUN_WITHIN, TakeBack};
use pvmigrate::trial::{Doom, Picture, Play, Stage};
use pvmigrate::words::RunId;
use pvmigrate::words::voice::Mute;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const SHOP: &str = include_str!("../../scenarios/crash.yaml");
const RUN: &str = "01234567";

pub struct Trial {
    oracle: Arc<Mutex<Oracle>>,
    stage: Stage,
    run: RunId,
    _dir: tempfile::TempDir,
}

/// Everything that is compared.
pub type End = Picture;

impl Trial {
    pub fn new() -> Trial {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let program = PathBuf::from(env!("CARGO_BIN_EXE_pvmigrate"));
        let image = Image { programs: vec![("pvmigrate".to_owned(), program)] };
        let images = Images { by_name: [("docker.io/pvmigrate/agent*".to_owned(), image)].into() };
        let shop = Scenario::parse("crash.yaml", SHOP).expect("it is tested");
        let stage = Stage::open(dir.path(), images, &shop, 7).expect("the shop opens");
        let oracle = Arc::new(Mutex::new(Oracle::new(&stage.lab)));
        let hook = oracle.clone();
        stage.lab.core().hook(Box::new(move |state, commit| hook.lock().unwrap().commit(state, commit)));
        let run = serde_json::from_value(Value::from(RUN)).expect("it is an id");
        Trial { oracle, stage, run, _dir: dir }
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

    /// Runs until the end or the death; `resumed` goes on with the journal that is there.
    pub fn run(&self, doom: &Arc<Doom>, resumed: bool) -> Result<(), String> {
        let cancel = CancellationToken::new();
        let script = Script::load("sc-migrate", &cancel).expect("the stock script is right");
        let mut args = Map::new();
        for spec in &script.options {
            args.insert(spec.name.clone(), spec.otherwise());
        }
        args.insert("source-sc".into(), "slow".into());
        args.insert("dest-sc".into(), "fast".into());
        let args = Value::Object(args);
        let play = Play {
            script,
            cancel,
            args,
            branch: "root".into(),
            resumed,
            voice: Arc::new(Mute),
            within: RUN_WITHIN,
            faults: None,
        };
        let ended = self.stage.play(&self.run, doom, play).map(|_| ());
        Self::judged(doom, ended)
    }

    /// Takes back what the journal has, until the end or the death.
    pub fn take_back(&self, doom: &Arc<Doom>, how: &str) -> Result<(), String> {
        Self::judged(doom, self.stage.take_back(&self.run, doom, Self::way(how)))
    }

    /// Takes back what came after a step.
    pub fn take_back_to(&self, doom: &Arc<Doom>, how: &str, to: &str) -> Result<(), String> {
        Self::judged(doom, self.stage.take_back_to(&self.run, doom, &StepId::new(to), Self::way(how)))
    }

    fn way(how: &str) -> TakeBack {
        let how = ["compare", "reverse", "discard"].into_iter().find(|word| *word == how).expect("it is one of three");
        TakeBack { how, voice: Arc::new(Mute), within: RUN_WITHIN, faults: None }
    }

    fn judged(doom: &Doom, ended: Result<(), pvmigrate::words::Problem>) -> Result<(), String> {
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

    pub fn end(&self) -> End {
        self.lab().settle(Duration::from_secs(30));
        self.oracle.lock().unwrap().picture(self.lab())
    }
}
