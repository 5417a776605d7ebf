//! Trials of scripts: runs on labs, cut off at any write, and what became of the cluster.
//!
//! Above `script` and the lab, used by the command line and by our own tests. What must stay true: nothing here is part
//! of a real run, and nothing here knows what a script is for.

pub mod crash;
pub mod doom;
pub mod files;
pub mod picture;
pub mod scene;
pub mod stage;
pub mod suite;
pub mod tell;
pub mod view;
pub mod watch;
pub mod words;

pub use doom::{Doom, How};
pub use picture::Picture;
pub use stage::{Between, Play, Stage};

use crate::journal::Source;
use crate::lab::kubelet::Images;
use crate::lab::scenario::Scenario;
use crate::script::Script;
use crate::script::args::Spec;
use crate::words::{Json, Kind, Problem, names};
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// Where labs are made, and what is in them.
pub struct Site {
    /// Each lab has a directory of its own in it.
    pub dir: PathBuf,
    pub images: Images,
    pub scenario: Scenario,
    pub seed: u64,
    pub cancel: CancellationToken,
    /// The exit code that the command line gives a kind of problem, before or after the first change.
    pub exit_code: fn(Kind, bool) -> u8,
}

impl Site {
    /// A new lab. The name must not be in use.
    ///
    /// # Errors
    /// As [`Stage::open`].
    pub fn stage(&self, name: &str) -> Result<Stage, Problem> {
        Stage::open(&self.dir.join(name.replace(':', "-")), self.images.clone(), &self.scenario, self.seed)
    }
}

/// A script as it was when the trial began: every run, and what goes on with it, is of this.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub name: String,
    pub sources: Vec<Source>,
    pub options: Vec<Spec>,
}

impl Snapshot {
    pub fn of(script: &Script) -> Snapshot {
        Snapshot { name: script.name.clone(), sources: script.sources.all(), options: script.options.clone() }
    }

    /// Compiles it once more.
    ///
    /// # Errors
    /// If it does not compile, which it did before.
    pub fn open(&self, cancel: &CancellationToken) -> Result<Script, Problem> {
        Script::stored(&self.name, &self.sources, cancel)
            .map_err(|problems| problems.into_iter().next().unwrap_or_else(|| Problem::bug("a script without faults")))
    }

    /// Values of its options as a test gives them: words as they are typed, or what the script gets.
    ///
    /// # Errors
    /// If one is unknown, of another kind, or missing.
    pub fn values(&self, given: &Json) -> Result<Json, Problem> {
        let none = serde_json::Map::new();
        let given = given.as_object().unwrap_or(&none);
        if let Some(key) = given.keys().find(|key| !self.options.iter().any(|spec| spec.name == **key)) {
            let mut problem = Problem::usage(format!("{} has no option `{}`", self.name, names::plain(key)));
            if let Some(word) = names::did_you_mean(key, self.options.iter().map(|spec| &spec.name[..])) {
                problem = problem.hint(format!("did you mean `{word}`?"));
            }
            return Err(problem.hint(format!("pvmigrate run {} --help lists them", self.name)));
        }
        let mut values = serde_json::Map::new();
        for spec in &self.options {
            let value = match given.get(&spec.name) {
                None | Some(Json::Null) if spec.required => {
                    return Err(Problem::usage(format!("{} wants the option `{}`", self.name, spec.name))
                        .hint(format!("run(#{{ \"{}\": \"...\" }})", spec.name)));
                }
                None | Some(Json::Null) => spec.otherwise(),
                Some(value) => one(spec, value)?,
            };
            values.insert(spec.name.clone(), value);
        }
        Ok(Json::Object(values))
    }
}

fn one(spec: &Spec, value: &Json) -> Result<Json, Problem> {
    match value {
        Json::Array(items) if spec.many => items
            .iter()
            .map(|item| one(&Spec { many: false, ..spec.clone() }, item))
            .collect::<Result<_, _>>()
            .map(Json::Array),
        value if spec.many => one(spec, &Json::Array(vec![value.clone()])),
        Json::String(text) if spec.kind != "yaml" => spec.parse(text),
        Json::Number(_) if spec.kind == "int" => Ok(value.clone()),
        Json::Bool(_) if spec.kind == "bool" => Ok(value.clone()),
        Json::Object(_) if spec.kind == "yaml" => Ok(value.clone()),
        other => Err(Problem::usage(format!("the option `{}` is a {}, not {other}", spec.name, spec.kind))),
    }
}
