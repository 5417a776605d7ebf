//! The REPL: a session of a cluster, line by line. It reads nothing and prints nothing: `cli::repl` does both.
//!
//! A session is a run: every line and every step of it stands in the journal, in one branch whose numbers go on from
//! line to line. Each line has a cancellation of its own. It cannot be resumed: there is no script to replay.

pub mod complete;
pub mod help;
pub mod line;
pub mod lines;
pub mod meta;
pub mod save;
pub mod table;

use crate::cluster::Door;
use crate::script::Script;
use crate::script::session::{Branch, Session};
use crate::words::{Json, Problem, Voice};
use lines::Lines;
use meta::Word;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// What every line of the session works with.
pub struct Host {
    /// Its cancellation is replaced for every line.
    pub door: Door,
    pub runtime: Handle,
    pub voice: Arc<dyn Voice>,
    pub yes: bool,
}

/// What a line came to.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Value(Json),
    Yaml(Json),
    Json(Json),
    /// Help.
    Text(String),
    /// A script to be written to this file.
    Save {
        file: String,
        text: String,
    },
    Quit,
}

pub struct Repl {
    lines: Lines,
    host: Host,
    branch: Arc<Branch>,
}

impl Repl {
    pub fn new(script: Script, host: Host) -> Self {
        let branch = Branch::root(session(&host, Json::Null, CancellationToken::new()), "root");
        Repl { lines: Lines::new(script), host, branch }
    }

    /// Does what a line says.
    ///
    /// # Errors
    /// Everything that is wrong with it, or what ended it.
    pub fn take(&mut self, line: &str, cancel: &CancellationToken) -> Result<Answer, Vec<Problem>> {
        if !meta::is_word(line) {
            return self.evaluate(line, cancel).map(Answer::Value);
        }
        let one = |problem: Problem| vec![problem];
        match meta::parse(line).map_err(one)? {
            Word::Help(None) => Ok(Answer::Text(help::overview())),
            Word::Help(Some(name)) => {
                help::of(&name, &self.lines.engine.gen_fn_signatures(true)).map(Answer::Text).map_err(one)
            }
            Word::Yaml(expr) => self.evaluate(&expr, cancel).map(Answer::Yaml),
            Word::Json(expr) => self.evaluate(&expr, cancel).map(Answer::Json),
            Word::Save(file) => {
                let about = format!("Typed at the prompt on {}.", self.host.door.cluster.context().replace('\n', " "));
                let text = save::script(self.lines.kept(), &about).map_err(one)?;
                Ok(Answer::Save { file, text })
            }
            Word::Quit => Ok(Answer::Quit),
        }
    }

    fn evaluate(&mut self, typed: &str, cancel: &CancellationToken) -> Result<Json, Vec<Problem>> {
        let line = self.lines.prepare(typed)?;
        let session = session(&self.host, line.options.clone(), cancel.clone());
        self.branch = self.branch.continued(session);
        let (_, id) = self.branch.next();
        let at = format!("{}:{}", lines::NAME, line.line);
        self.host.door.journal.observe(&id, "line", "", &at, typed.into()).map_err(|problem| vec![problem])?;
        let value = self.lines.run(line, self.branch.tag(), cancel).map_err(|problem| vec![problem])?;
        Ok(lines::plain(&value))
    }

    /// Names and texts that places point into.
    pub fn sources(&self) -> Vec<(String, String)> {
        self.lines.sources()
    }

    /// What completion may offer now.
    pub fn known(&self) -> complete::Known {
        self.lines.known()
    }
}

fn session(host: &Host, args: Json, cancel: CancellationToken) -> Arc<Session> {
    let Door { cluster, journal, ledger, vigils, .. } = &host.door;
    let door = Door {
        cluster: cluster.clone(),
        journal: journal.clone(),
        ledger: ledger.clone(),
        vigils: vigils.clone(),
        cancel,
    };
    Arc::new(Session {
        door,
        runtime: host.runtime.clone(),
        voice: host.voice.clone(),
        args,
        yes: host.yes,
        resumed: false,
    })
}
