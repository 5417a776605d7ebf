//! One lab with a small shop, and runs of sc-migrate in it.

use super::doom::{Doom, Dying, Faulty};
use super::oracle::{Oracle, Picture};
use pvmigrate::cluster::{self, Door, Ledger, Vigils};
use pvmigrate::journal::{FileStore, Journal, Store as _};
use pvmigrate::lab::kubelet::{Image, Images};
use pvmigrate::lab::scenario::Scenario;
use pvmigrate::lab::{Lab, Options};
use pvmigrate::script::session::Session;
use pvmigrate::script::{Script, undo};
use pvmigrate::words::RunId;
use pvmigrate::words::voice::Mute;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const SHOP: &str = include_str!("../../scenarios/crash.yaml");
const RUN: &str = "01234567";

pub struct Trial {
    oracle: Arc<Mutex<Oracle>>,
    pub lab: Lab,
    state: PathBuf,
    _dir: tempfile::TempDir,
}

/// Everything that is compared.
pub type End = Picture;

impl Trial {
    pub fn new() -> Trial {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let state = dir.path().join("state");
        std::fs::create_dir(&state).expect("our directory is writable");
        let program = PathBuf::from(env!("CARGO_BIN_EXE_pvmigrate"));
        let image = Image { programs: vec![("pvmigrate".to_owned(), program)] };
        let images = Images { by_name: [("docker.io/pvmigrate/agent*".to_owned(), image)].into() };
        let options = Options { dir: dir.path().join("lab"), images, shared: Vec::new(), seed: 7, keep: false };
        let lab = Lab::open(options).expect("an empty directory is fine");
        Scenario::parse("crash.yaml", SHOP).expect("it is tested").apply(&lab).expect("the lab takes it");
        lab.settle(Duration::from_secs(30));
        lab.wait(Duration::from_secs(30), |state| {
            let web = state.get("Deployment", "shop", "web")?;
            (web["status"]["readyReplicas"] == 1).then_some(())
        })
        .expect("the shop opens");
        let oracle = Arc::new(Mutex::new(Oracle::new(&lab)));
        let hook = oracle.clone();
        lab.core().hook(Box::new(move |state, commit| hook.lock().unwrap().commit(state, commit)));
        Trial { oracle, lab, state, _dir: dir }
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
        self.execute(doom, script, cancel, Value::Object(args), "root", resumed)
    }

    /// Takes back what the journal has, until the end or the death.
    pub fn take_back(&self, doom: &Arc<Doom>, how: &str) -> Result<(), String> {
        let events = self.open()?.load().map_err(|problem| problem.to_string())?;
        let (state, books) = undo::before_rollback(&events).map_err(|problem| problem.to_string())?;
        let plan = undo::plan(&state, &books, how);
        if let Some(obstacle) = plan.obstacles.first() {
            return Err(format!("refused: {obstacle}"));
        }
        let cancel = CancellationToken::new();
        let script = Script::typed(undo::SCRIPT, &cancel).expect("it is tested");
        let args = undo::args(&plan, &json!({"how": how, "image": null, "pod_patch": null, "run_as": null}), 4);
        self.execute(doom, script, cancel, args, undo::BRANCH, true)
    }

    fn execute(
        &self,
        doom: &Arc<Doom>,
        mut script: Script,
        cancel: CancellationToken,
        args: Value,
        branch: &str,
        resumed: bool,
    ) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let run: RunId = serde_json::from_value(Value::from(RUN)).expect("it is an id");
        let inner = self.open()?;
        let store = Dying { inner, file: self.state.join("journal.jsonl"), doom: doom.clone() };
        let journal = Journal::open(run, Box::new(store)).map_err(|problem| problem.to_string())?;
        let facts = journal.facts();
        let door = Door {
            cluster: runtime
                .block_on(async { cluster::over(Faulty { inner: self.lab.transport(), doom: doom.clone() }, "lab") }),
            journal: Arc::new(journal),
            ledger: Arc::new(Ledger::from_facts(&facts).map_err(|problem| problem.to_string())?),
            vigils: Arc::new(Vigils::default()),
            cancel,
        };
        let journal = door.journal.clone();
        let session = Arc::new(Session {
            door,
            runtime: runtime.handle().clone(),
            voice: Arc::new(Mute),
            args,
            yes: true,
            resumed,
        });
        let ended = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(64 << 20);
            let thread = thread.spawn_scoped(scope, || script.run(&session, branch)).expect("a thread can be started");
            thread.join().expect("the script's thread does not panic")
        });
        let ended = ended.and_then(|value| journal.end(branch, value)).map_err(|problem| problem.to_string());
        drop((session, journal, script));
        runtime.shutdown_timeout(Duration::from_secs(5));
        let faults = doom.faults();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        ended
    }

    /// A lock is let go when the last process has closed the file, and the lab may be starting one just now.
    fn open(&self) -> Result<FileStore, String> {
        let started = std::time::Instant::now();
        loop {
            match FileStore::open(&self.state) {
                Ok(store) => return Ok(store),
                Err(problem) if started.elapsed() > Duration::from_secs(10) => return Err(problem.to_string()),
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    /// What held after every commit, and what the requests were.
    pub fn check_always(&self) {
        let broken = self.oracle.lock().unwrap().broken();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    pub fn end(&self) -> End {
        self.lab.settle(Duration::from_secs(30));
        self.oracle.lock().unwrap().picture(&self.lab)
    }
}
