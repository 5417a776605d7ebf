//! The lab of one test, and what the words of a test do in it.
//!
//! The script under test runs as a person's run does; everything else that a test changes is done as somebody else.

use super::doom::{Doom, Effect, How};
use super::stage::{Notes, Play, RUN_WITHIN, Stage, TakeBack};
use super::view::{Beginning, dir_of_claim};
use super::watch::Watch;
use super::{Site, Snapshot};
use crate::cluster::{self, Door, Ledger, Vigils};
use crate::lab::access::User;
use crate::lab::faults::{Fault, Faults};
use crate::lab::handle::{Answer, Request, Verb};
use crate::lab::kind;
use crate::lab::negotiate::Body;
use crate::lab::status::Status;
use crate::script::session::Session;
use crate::words::voice::Mute;
use crate::words::{Json, Kind, Problem, RunId, names};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// Who changes things in a test.
const SOMEBODY: &str = "somebody";

/// One lab with the script under test.
pub struct Scene {
    pub stage: Stage,
    watch: Arc<Watch>,
    script: Snapshot,
    /// Of `run()` without any.
    options: Json,
    cancel: CancellationToken,
    exit_code: fn(Kind, bool) -> u8,
    at: Mutex<At>,
}

#[derive(Default)]
struct At {
    runs: u32,
    /// The run that resume and rollback mean, with its options.
    current: Option<(RunId, Json)>,
    /// What happens to the next run.
    next: Option<Arc<Doom>>,
    faults: Vec<Fault>,
    /// Everything that was planned, in words, and whether it happened.
    planned: Vec<(String, Arc<Doom>)>,
    missed: Option<String>,
    /// Why the last run stopped.
    stopped: Option<Problem>,
}

impl Scene {
    /// Makes the lab.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(site: &Site, name: &str, script: &Snapshot, options: &Json) -> Result<Scene, Problem> {
        let stage = site.stage(name)?;
        let watch = Watch::on(&stage.lab, Beginning::of(&stage.lab));
        Ok(Scene {
            stage,
            watch,
            script: script.clone(),
            options: options.clone(),
            cancel: site.cancel.child_token(),
            exit_code: site.exit_code,
            at: Mutex::default(),
        })
    }

    fn at(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the last run stopped, if it did.
    pub fn stopped(&self) -> Option<Problem> {
        self.at().stopped.clone()
    }

    /// What was planned and did not happen.
    pub fn not_happened(&self) -> Option<String> {
        let at = self.at();
        let crash = at.planned.iter().find(|(_, doom)| !doom.has_fired()).map(|(what, _)| what.clone());
        crash.or(at.missed.clone()).or(at.faults.first().map(named))
    }

    /// A session for the reads of a test.
    ///
    /// # Errors
    /// If its journal cannot be made.
    pub fn session(&self, runtime: &tokio::runtime::Runtime) -> Result<Arc<Session>, Problem> {
        let journal = Arc::new(self.stage.journal(&RunId::parse("00000000")?)?);
        let cluster = runtime.block_on(async { cluster::over(self.stage.lab.transport(), "lab") });
        let ledger = Arc::new(Ledger::from_facts(&[])?);
        let door = Door { cluster, journal, ledger, vigils: Arc::new(Vigils::default()), cancel: self.cancel.clone() };
        let voice = Arc::new(Mute);
        let runtime = runtime.handle().clone();
        Ok(Arc::new(Session { door, runtime, voice, args: json!({}), yes: true, resumed: false }))
    }

    /// Runs the script.
    ///
    /// # Errors
    /// If the options are wrong; how the run ended is in the answer.
    pub fn run(&self, given: Option<&Json>) -> Result<Json, Problem> {
        let args = self.script.values(given.unwrap_or(&self.options))?;
        let run = {
            let mut at = self.at();
            at.runs += 1;
            let run = RunId::parse(&format!("{:08x}", at.runs))?;
            at.current = Some((run.clone(), args.clone()));
            run
        };
        self.play(&run, args, false)
    }

    /// Goes on with the last run.
    ///
    /// # Errors
    /// If there is none.
    pub fn resume(&self) -> Result<Json, Problem> {
        let (run, args) = self.current("resume")?;
        if self.stage.journal(&run)?.ended("root").is_some() {
            return Err(Problem::usage("the run is done: there is nothing to resume"));
        }
        self.play(&run, args, true)
    }

    fn play(&self, run: &RunId, args: Json, resumed: bool) -> Result<Json, Problem> {
        let cancel = self.cancel.child_token();
        let script = self.script.open(&cancel)?;
        let (doom, notes) = (self.doom(), Arc::new(Notes::default()));
        let (voice, faults) = (notes.clone(), self.faults(&doom));
        let within = RUN_WITHIN;
        let play = Play { script, cancel, args, branch: "root".into(), resumed, voice, within, faults: faults.clone() };
        let ended = self.stage.play(run, &doom, play);
        self.told(run, &doom, &notes, faults.as_ref(), ended)
    }

    /// Takes the last run back.
    ///
    /// # Errors
    /// If there is none.
    pub fn rollback(&self, opts: &Json) -> Result<Json, Problem> {
        let (run, _) = self.current("rollback")?;
        let mut how = "compare";
        for (key, value) in opts.as_object().into_iter().flatten() {
            how = match (&key[..], value.as_bool()) {
                (_, Some(false)) => how,
                ("reverse_sync", Some(true)) if how == "compare" => "reverse",
                ("discard_new_data", Some(true)) if how == "compare" => "discard",
                ("reverse_sync" | "discard_new_data", Some(true)) => {
                    return Err(Problem::usage("reverse_sync and discard_new_data: one of the two"));
                }
                ("reverse_sync" | "discard_new_data", None) => {
                    return Err(Problem::usage(format!("the option `{key}` of rollback is a bool, not {value}")));
                }
                _ => {
                    return Err(Problem::usage(format!("rollback has no option `{}`", names::plain(key)))
                        .hint("it knows: reverse_sync, discard_new_data"));
                }
            };
        }
        let (doom, notes) = (self.doom(), Arc::new(Notes::default()));
        let faults = self.faults(&doom);
        let back = TakeBack { how, voice: notes.clone(), within: RUN_WITHIN, faults: faults.clone() };
        let ended = self.stage.take_back(&run, &doom, back).map(|()| Json::Null);
        self.told(&run, &doom, &notes, faults.as_ref(), ended)
    }

    fn current(&self, word: &str) -> Result<(RunId, Json), Problem> {
        self.at().current.clone().ok_or_else(|| Problem::usage(format!("{word}: nothing was run yet")))
    }

    fn doom(&self) -> Arc<Doom> {
        self.at().next.take().unwrap_or_else(Doom::none)
    }

    /// What goes wrong in the next run, if anything does.
    fn faults(&self, doom: &Arc<Doom>) -> Option<Faults> {
        let plan = std::mem::take(&mut self.at().faults);
        let doom = doom.clone();
        (!plan.is_empty()).then(|| Faults::with_crash(&self.stage.lab, plan, Box::new(move |_| doom.die())))
    }

    /// How a run ended, for the test.
    fn told(
        &self,
        run: &RunId,
        doom: &Doom,
        notes: &Notes,
        faults: Option<&Faults>,
        ended: Result<Json, Problem>,
    ) -> Result<Json, Problem> {
        if let Some(fault) = faults.and_then(|faults| faults.unfired().into_iter().next()) {
            self.at().missed.get_or_insert(named(&fault));
        }
        let changed = self.stage.journal(run)?.has_changed();
        let said = notes.said();
        self.at().stopped = ended.as_ref().err().cloned();
        let (value, problem) = match ended {
            Ok(value) => (value, None),
            Err(problem) => (Json::Null, Some(problem)),
        };
        let text = |of: fn(&Problem) -> String| problem.as_ref().map_or(Json::Null, |problem| of(problem).into());
        Ok(json!({
            "ok": problem.is_none(),
            "kind": text(|problem| problem.kind.word()),
            "error": text(|problem| problem.message.clone()),
            "hint": problem.as_ref().and_then(|problem| problem.hints.first()),
            "at": problem.as_ref().and_then(|problem| problem.place.as_ref())
                .map(|place| format!("{}:{}", place.script, place.line)),
            "code": problem.as_ref().map_or(0, |problem| (self.exit_code)(problem.kind, changed)),
            "changed": changed,
            "crashed": doom.has_fired(),
            "value": value,
            "rows": said.rows,
            "log": said.log,
            "warnings": said.warnings,
            "writes": doom.effects().iter().map(written).collect::<Vec<_>>(),
        }))
    }

    /// Plans what happens to the next run.
    ///
    /// # Errors
    /// If the write or the way is none.
    pub fn crash_at(&self, write: &Json, way: &str) -> Result<(), Problem> {
        let how = How::find(way).ok_or_else(|| {
            let ways: Vec<&str> = How::ALL.into_iter().map(How::word).collect();
            let mut problem = Problem::usage(format!("there is no way `{}` to crash", names::plain(way)));
            if let Some(word) = names::did_you_mean(way, ways.iter().copied()) {
                problem = problem.hint(format!("did you mean `{word}`?"));
            }
            problem.hint(format!("the ways are: {}", ways.join(", ")))
        })?;
        let (doom, what) = match write {
            Json::Number(number) => match number.as_u64().filter(|number| *number > 0) {
                Some(number) => (Doom::at(number as usize - 1, how), format!("write {number}")),
                None => return Err(Problem::usage("writes are counted from 1")),
            },
            Json::String(words) => (Doom::at_words(words, how), format!("`{}`", names::plain(words))),
            _ => {
                return Err(Problem::usage("crash_at wants the number of a write, or its words")
                    .hint("crash_at(\"delete PersistentVolumeClaim shop/data\", \"before-done\")"));
            }
        };
        let mut at = self.at();
        at.next = Some(doom.clone());
        at.planned.push((format!("the crash at {what} ({way})"), doom));
        Ok(())
    }

    /// Plans what goes wrong on the way to the cluster in the next run; several at once are possible.
    ///
    /// # Errors
    /// If it is none.
    pub fn fault(&self, fault: &Json) -> Result<(), Problem> {
        let fault = Fault::read(fault.clone()).map_err(|why| {
            Problem::usage(format!("this is no fault: {why}"))
                .hint("fault(#{ on: #{ verb: \"delete\", kind: \"pvc\" }, then: \"answer_lost\" })")
        })?;
        self.at().faults.push(fault);
        Ok(())
    }

    /// One request of somebody else.
    fn ask(&self, verb: Verb, kind: &str, namespace: &str, name: &str, body: Json) -> Result<Answer, Problem> {
        let kind = kind::find(kind).ok_or_else(|| {
            let mut problem = Problem::usage(format!("the lab has no kind `{}`", names::plain(kind)));
            if let Some(word) = names::did_you_mean(kind, kind::KINDS.iter().map(|kind| kind.kind)) {
                problem = problem.hint(format!("did you mean `{word}`?"));
            }
            problem
        })?;
        let namespace = if kind.namespaced { namespace } else { "" };
        let request = Request {
            verb,
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            sub: String::new(),
            query: BTreeMap::new(),
            body,
            user: User::new(SOMEBODY, &["system:masters"]),
        };
        self.stage.lab.core().request(&request).map_err(|status| refused(&status))
    }

    /// Makes an object, or changes the one there is to what is given of it.
    ///
    /// # Errors
    /// If the lab does not take it.
    pub fn make(&self, object: &Json) -> Result<Json, Problem> {
        let text = |at: &str| object.pointer(at).and_then(Json::as_str).unwrap_or_default();
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        let namespace = if text("/metadata/namespace").is_empty() { "default" } else { text("/metadata/namespace") };
        if kind.is_empty() || name.is_empty() {
            return Err(Problem::usage("an object has apiVersion, kind and metadata.name"));
        }
        let there = self.ask(Verb::Get, kind, namespace, name, Json::Null).is_ok();
        let made = if there {
            self.ask(Verb::Patch(Body::MergePatch), kind, namespace, name, object.clone())?
        } else {
            self.ask(Verb::Create, kind, namespace, "", object.clone())?
        };
        Ok((*made.object).clone())
    }

    /// The same for every document of a text.
    ///
    /// # Errors
    /// The first that is no YAML, or that the lab does not take.
    pub fn apply_yaml(&self, text: &str) -> Result<(), Problem> {
        use serde::Deserialize as _;
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let object = Value::deserialize(document).map_err(|e| Problem::usage("this is not YAML").because(&e))?;
            if !object.is_null() {
                self.make(&object)?;
            }
        }
        Ok(())
    }

    /// A merge patch.
    ///
    /// # Errors
    /// If the lab does not take it.
    pub fn change(&self, kind: &str, namespace: &str, name: &str, patch: &Json) -> Result<Json, Problem> {
        let changed = self.ask(Verb::Patch(Body::MergePatch), kind, namespace, name, patch.clone())?;
        Ok((*changed.object).clone())
    }

    /// # Errors
    /// If it is not there, or the lab does not let it go.
    pub fn remove(&self, kind: &str, namespace: &str, name: &str) -> Result<(), Problem> {
        self.ask(Verb::Delete, kind, namespace, name, Json::Null).map(|_| ())
    }

    /// What is in the volume of a claim: path → digest.
    ///
    /// # Errors
    /// If the claim has no volume.
    pub fn files(&self, claim: &Json) -> Result<Json, Problem> {
        let files = super::files::Files::of(&self.dir_of(claim)?);
        let digest = |line: &str| Json::from(blake3::hash(line.as_bytes()).to_hex()[..16].to_owned());
        Ok(Json::Object(files.0.iter().map(|(path, line)| (path.clone(), digest(line))).collect()))
    }

    /// # Errors
    /// If the claim has no volume, or this is no file in it.
    pub fn read_file(&self, claim: &Json, path: &str) -> Result<String, Problem> {
        let file = self.file(claim, path)?;
        std::fs::read_to_string(&file).map_err(|e| failed(path, &e))
    }

    /// # Errors
    /// If the claim has no volume, or the file cannot be written.
    pub fn write_file(&self, claim: &Json, path: &str, text: &str) -> Result<(), Problem> {
        let file = self.file(claim, path)?;
        let parent = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        parent.and_then(|()| std::fs::write(&file, text)).map_err(|e| failed(path, &e))
    }

    /// # Errors
    /// If the claim has no volume, or this is no file in it.
    pub fn remove_file(&self, claim: &Json, path: &str) -> Result<(), Problem> {
        let file = self.file(claim, path)?;
        std::fs::remove_file(&file).map_err(|e| failed(path, &e))
    }

    /// Lines that a writer had written and that are in its claim no more.
    pub fn lost_lines(&self) -> Vec<String> {
        self.watch.lost_lines(&self.stage.lab)
    }

    fn file(&self, claim: &Json, path: &str) -> Result<PathBuf, Problem> {
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || path.is_empty() {
            return Err(Problem::usage(format!("`{}` is no path in a volume", names::plain(path))));
        }
        Ok(self.dir_of(claim)?.join(path))
    }

    fn dir_of(&self, claim: &Json) -> Result<PathBuf, Problem> {
        let text = |at: &str| claim.pointer(at).and_then(Json::as_str);
        let key = match (claim.as_str(), text("/metadata/namespace"), text("/metadata/name")) {
            (Some(key), ..) => key.to_owned(),
            (None, Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            _ => {
                return Err(Problem::usage("a claim is wanted, or its namespace and name")
                    .hint("files(\"shop/data\"), or files(get_pvc(\"shop\", \"data\"))"));
            }
        };
        let core = self.stage.lab.core();
        core.look(|state| dir_of_claim(state, &core.disks, &key)).filter(|dir| dir.is_dir()).ok_or_else(|| {
            Problem::new(Kind::NotFound, format!("there is no claim {} with a volume", names::plain(&key)))
        })
    }
}

fn named(fault: &Fault) -> String {
    format!("the fault {}", serde_json::to_string(fault).unwrap_or_default())
}

fn failed(path: &str, error: &std::io::Error) -> Problem {
    Problem::new(Kind::NotFound, format!("`{}` in the volume", names::plain(path))).because(error)
}

fn refused(status: &Status) -> Problem {
    let kind = match status.code {
        404 => Kind::NotFound,
        409 => Kind::Conflict,
        _ => Kind::Rejected,
    };
    Problem::new(kind, status.message.clone()).code(i64::from(status.code))
}

fn written(effect: &Effect) -> Json {
    json!({
        "verb": effect.verb(), "kind": effect.object.kind, "namespace": effect.object.namespace,
        "name": effect.object.name, "at": effect.at, "step": effect.id,
    })
}
