//! The words that tests have and scripts have not: one table, from which the documents are made too.

use super::scene::Scene;
use super::tell;
use crate::script::errors;
use crate::script::primitives::{self, Effect};
use crate::script::view::{to_dynamic, to_json};
use crate::words::{Json, Kind, Place as At, Problem};
use rhai::{Dynamic, Engine, EvalAltResult, Map, NativeCallContext};
use std::sync::{Arc, OnceLock};

/// One entry, for people.
pub struct Word {
    pub name: &'static str,
    pub signature: &'static str,
    pub doc: &'static str,
    /// The body of a test of sc-migrate on the scenario `small`; a test runs it.
    pub example: &'static str,
}

pub const WORDS: &[Word] = &[
    Word {
        name: "run",
        signature: "run(options?: map) -> map",
        doc: "Runs the script under test with these options, or with OPTIONS of the test file, and returns how it ended: `ok`, \
              `error`, `kind`, `hint`, `at`, `code` (the exit code), `changed`, `crashed`, `value`, `rows` (of its tables), \
              `log`, `warnings`, and `writes` (maps of `verb`, `kind`, `namespace`, `name`, `at`, `step`). Questions are answered \
              with yes.",
        example: "let end = run(#{ \"source-sc\": \"slow\", \"dest-sc\": \"fast\" });\nassert(end.ok, end.error);\nassert_eq(end.rows[0].claim, \"shop/data\");",
    },
    Word {
        name: "resume",
        signature: "resume() -> map",
        doc: "Goes on with the last run, as `pvmigrate resume` does, with the script and the options that it began with.",
        example: "crash_at(\"delete PersistentVolumeClaim shop/data\", \"before-done\");\nassert(!run().ok);\nassert(resume().ok);",
    },
    Word {
        name: "rollback",
        signature: "rollback(opts?: map) -> map",
        doc: "Takes the last run back, as `pvmigrate rollback` does.\nOptions: `reverse_sync`, `discard_new_data`.",
        example: "assert(run().ok);\nassert(rollback(#{ reverse_sync: true }).ok);\nassert_eq(get_pvc(\"shop\", \"data\").class, \"slow\");",
    },
    Word {
        name: "crash_at",
        signature: "crash_at(write: int or string, way: string) -> ()",
        doc: "Disturbs the next run, resume or rollback at a write: its number, from 1, or the first that is called so \
              (`delete PersistentVolumeClaim shop/data`, or the beginning of it). The ways are `before-start` (killed before the \
              journal has the write), `after-start` (killed before it is sent), `sent-and-lost` (the request never arrives), \
              `answer-lost` (it is done, and the answer is lost), `before-done` (killed before the answer is noted), `torn-line` \
              (killed while it is noted) and `after-done` (killed when it is noted). A disturbance that does not happen fails \
              the test.",
        example: "crash_at(\"patch Deployment\", \"answer-lost\");\nlet end = run();\nassert(end.ok && end.crashed, end.error);",
    },
    Word {
        name: "fault",
        signature: "fault(fault: map) -> ()",
        doc: "Lets something go wrong between the next run, resume or rollback and the cluster: `on` says at which request \
              (`verb`, `kind`, `name` and `namespace` with `*`, `nth`), `when` it happens (`before` or `after` the server has \
              done it), `then` what happens, `times` how often in a row. What can happen: `#{ status: 409 }` or \
              `#{ status: #{ code: 429, retry_after_s: 1 } }`, `lost`, `answer_lost`, `no_answer`, `reset`, `truncated`, \
              `#{ delay_s: 2.0 }`, `#{ stale: 3 }`, `twice`, `watch_dropped`, `watch_silent`, `watch_expired`, \
              `#{ somebody: #{ create: object } }` (or `patch`, `delete`), `#{ kill_pod: #{ name: \"web-*\" } }` (or `oom_kill_pod`, `evict_pod`) and `crash`. A \
              fault that does not happen fails the test.",
        example: "fault(#{ on: #{ verb: \"patch\", kind: \"Deployment\" }, then: #{ status: 503 } });\nlet end = run();\nassert(end.ok, end.error);",
    },
    Word {
        name: "assert",
        signature: "assert(condition: bool, message?: string) -> ()",
        doc: "Fails the test unless the condition is true.",
        example: "assert(get_pvc(\"shop\", \"data\").phase == \"Bound\", \"the claim of the shop is bound\");",
    },
    Word {
        name: "assert_eq",
        signature: "assert_eq(left: value, right: value) -> ()",
        doc: "Fails the test unless the two are equal, and says where they differ.",
        example: "assert_eq(list_pvcs().map(|claim| claim.name), [\"data\"]);",
    },
    Word {
        name: "make",
        signature: "make(object: map) -> object",
        doc: "Makes an object in the lab, or changes the one there is, as somebody else.",
        example: "make(#{ apiVersion: \"v1\", kind: \"ConfigMap\", metadata: #{ name: \"note\", namespace: \"shop\" }, data: #{ a: \"1\" } });\nassert_eq(get_object(\"ConfigMap\", \"shop\", \"note\").data.a, \"1\");",
    },
    Word {
        name: "apply_yaml",
        signature: "apply_yaml(text: string) -> ()",
        doc: "The same for every document of a YAML text.",
        example: "apply_yaml(`\napiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: note, namespace: other}\n`);\nassert(find_object(\"ConfigMap\", \"other\", \"note\") != ());",
    },
    Word {
        name: "change",
        signature: "change(kind: string, namespace: string, name: string, patch: map) -> object",
        doc: "Changes an object with a merge patch, as somebody else.",
        example: "change(\"Deployment\", \"shop\", \"web\", #{ spec: #{ replicas: 0 } });\nrest();\nassert_eq(get_object(\"Deployment\", \"shop\", \"web\").replicas, 0);",
    },
    Word {
        name: "remove",
        signature: "remove(kind: string, namespace: string, name: string) -> ()",
        doc: "Deletes an object, as somebody else.",
        example: "remove(\"StorageClass\", \"\", \"fast\");\nassert_eq(run().kind, \"NotFound\");",
    },
    Word {
        name: "files",
        signature: "files(claim: PersistentVolumeClaim or string) -> map",
        doc: "What is in the volume of a claim: a digest of content, owner, mode, time and attributes for each path.",
        example: "let before = files(\"shop/data\")[\"d000/f00000\"];\nassert(run().ok);\nassert_eq(files(get_pvc(\"shop\", \"data\"))[\"d000/f00000\"], before);",
    },
    Word {
        name: "read_file",
        signature: "read_file(claim: PersistentVolumeClaim or string, path: string) -> string",
        doc: "The text of a file in the volume of a claim.",
        example: "assert_eq(read_file(\"shop/data\", \"odd/attributes\"), \"with attributes\\n\");",
    },
    Word {
        name: "write_file",
        signature: "write_file(claim: PersistentVolumeClaim or string, path: string, text: string) -> ()",
        doc: "Writes a file in the volume of a claim, as the application.",
        example: "write_file(\"shop/data\", \"notes/one\", \"hello\");\nassert(run().ok);\nassert_eq(read_file(\"shop/data\", \"notes/one\"), \"hello\");",
    },
    Word {
        name: "remove_file",
        signature: "remove_file(claim: PersistentVolumeClaim or string, path: string) -> ()",
        doc: "Removes a file from the volume of a claim, as the application.",
        example: "remove_file(\"shop/data\", \"odd/empty\");\nassert(!(\"odd/empty\" in files(\"shop/data\")));",
    },
    Word {
        name: "lost_lines",
        signature: "lost_lines() -> array",
        doc: "Every claim whose volume has fewer lines than the application (`agent exercise`) had written and synced to it: \
              empty if no write was lost.",
        example: "assert(run().ok);\nassert_eq(lost_lines(), []);",
    },
    Word {
        name: "rest",
        signature: "rest() -> ()",
        doc: "Waits until nothing in the lab is on its way to run or to go any more.",
        example: "change(\"Deployment\", \"shop\", \"web\", #{ spec: #{ replicas: 0 } });\nrest();\nassert_eq(list_objects(\"Pod\", #{ namespace: \"shop\" }).len(), 0);",
    },
];

/// The word of this name.
pub fn find(name: &str) -> Option<&'static Word> {
    WORDS.iter().find(|word| word.name == name)
}

/// The lab that the words of one engine are about; empty while a test file is only looked at.
pub type Place = Arc<OnceLock<Arc<Scene>>>;

type Outcome<T> = Result<T, Box<EvalAltResult>>;
type C<'a> = NativeCallContext<'a>;

/// Makes the words callable, and what only scripts may do not.
pub fn register(engine: &mut Engine, place: &Place) {
    refuse_writes(engine);
    engine.register_fn("assert", |ctx: C, condition: Dynamic| assert(&ctx, &condition, "this is not true"));
    engine.register_fn("assert", |ctx: C, condition: Dynamic, message: Dynamic| {
        assert(&ctx, &condition, &message.to_string())
    });
    engine.register_fn("assert_eq", |ctx: C, left: Dynamic, right: Dynamic| assert_eq(&ctx, &left, &right));
    let p = place.clone();
    engine.register_fn("run", move |ctx: C| said(&ctx, &p, |scene| scene.run(None)));
    let p = place.clone();
    engine.register_fn("run", move |ctx: C, options: Map| {
        let options = json(&ctx, options.into())?;
        said(&ctx, &p, |scene| scene.run(Some(&options)))
    });
    let p = place.clone();
    engine.register_fn("resume", move |ctx: C| said(&ctx, &p, Scene::resume));
    let p = place.clone();
    engine.register_fn("rollback", move |ctx: C| said(&ctx, &p, |scene| scene.rollback(&Json::Null)));
    let p = place.clone();
    engine.register_fn("rollback", move |ctx: C, opts: Map| {
        let opts = json(&ctx, opts.into())?;
        said(&ctx, &p, |scene| scene.rollback(&opts))
    });
    let p = place.clone();
    engine.register_fn("crash_at", move |ctx: C, write: Dynamic, way: &str| {
        let write = json(&ctx, write)?;
        on(&ctx, &p, |scene| scene.crash_at(&write, way))
    });
    let p = place.clone();
    engine.register_fn("fault", move |ctx: C, fault: Map| {
        let fault = json(&ctx, fault.into())?;
        on(&ctx, &p, |scene| scene.fault(&fault))
    });
    objects(engine, place);
    volumes(engine, place);
    let p = place.clone();
    engine.register_fn("rest", move |ctx: C| {
        on(&ctx, &p, |scene| {
            scene.stage.rest();
            Ok(())
        })
    });
}

fn objects(engine: &mut Engine, place: &Place) {
    let p = place.clone();
    engine.register_fn("make", move |ctx: C, object: Dynamic| {
        let object = json(&ctx, object)?;
        said(&ctx, &p, |scene| scene.make(&object))
    });
    let p = place.clone();
    engine.register_fn("apply_yaml", move |ctx: C, text: &str| on(&ctx, &p, |scene| scene.apply_yaml(text)));
    let p = place.clone();
    engine.register_fn("change", move |ctx: C, kind: &str, namespace: &str, name: &str, patch: Map| {
        let patch = json(&ctx, patch.into())?;
        said(&ctx, &p, |scene| scene.change(kind, namespace, name, &patch))
    });
    let p = place.clone();
    engine.register_fn("remove", move |ctx: C, kind: &str, namespace: &str, name: &str| {
        on(&ctx, &p, |scene| scene.remove(kind, namespace, name))
    });
}

fn volumes(engine: &mut Engine, place: &Place) {
    let p = place.clone();
    engine.register_fn("files", move |ctx: C, claim: Dynamic| {
        let claim = json(&ctx, claim)?;
        said(&ctx, &p, |scene| scene.files(&claim))
    });
    let p = place.clone();
    engine.register_fn("read_file", move |ctx: C, claim: Dynamic, path: &str| {
        let claim = json(&ctx, claim)?;
        on(&ctx, &p, |scene| scene.read_file(&claim, path))
    });
    let p = place.clone();
    engine.register_fn("write_file", move |ctx: C, claim: Dynamic, path: &str, text: &str| {
        let claim = json(&ctx, claim)?;
        on(&ctx, &p, |scene| scene.write_file(&claim, path, text))
    });
    let p = place.clone();
    engine.register_fn("remove_file", move |ctx: C, claim: Dynamic, path: &str| {
        let claim = json(&ctx, claim)?;
        on(&ctx, &p, |scene| scene.remove_file(&claim, path))
    });
    let p = place.clone();
    engine.register_fn("lost_lines", move |ctx: C| said(&ctx, &p, |scene| Ok(Json::from(scene.lost_lines()))));
}

/// What changes the cluster with the guards and the journal of a run is for scripts: a test that used it would test its
/// own writes.
fn refuse_writes(engine: &mut Engine) {
    fn refusal(ctx: &C) -> Outcome<()> {
        let problem =
            Problem::usage(format!("`{}` belongs into scripts: a test changes things as somebody else", ctx.fn_name()))
                .hint("make, apply_yaml, change and remove do that; run() runs the script");
        Err(errors::throw(&problem, ctx.call_position()))
    }
    type D = Dynamic;
    for primitive in primitives::all().filter(|primitive| primitive.effect != Effect::Read) {
        let name = primitive.name;
        engine.register_fn(name, |ctx: C, _: D| refusal(&ctx));
        engine.register_fn(name, |ctx: C, _: D, _: D| refusal(&ctx));
        engine.register_fn(name, |ctx: C, _: D, _: D, _: D| refusal(&ctx));
        engine.register_fn(name, |ctx: C, _: D, _: D, _: D, _: D| refusal(&ctx));
    }
}

/// Does something in the lab of the test.
fn on<T>(ctx: &C, place: &Place, work: impl FnOnce(&Scene) -> Result<T, Problem>) -> Outcome<T> {
    let scene = place.get().ok_or_else(|| Problem::usage("a test's words have a place in its functions only"));
    scene.and_then(|scene| work(scene)).map_err(|problem| errors::throw(&problem, ctx.call_position()))
}

fn said(ctx: &C, place: &Place, work: impl FnOnce(&Scene) -> Result<Json, Problem>) -> Outcome<Dynamic> {
    on(ctx, place, work).map(|json| to_dynamic(&json))
}

fn json(ctx: &C, value: Dynamic) -> Outcome<Json> {
    to_json(&value).map_err(|problem| errors::throw(&problem, ctx.call_position()))
}

fn assert(ctx: &C, condition: &Dynamic, message: &str) -> Outcome<()> {
    match condition.as_bool() {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed(ctx, Problem::new(Kind::Thrown, message))),
        Err(kind) => {
            let problem = Problem::usage(format!("assert wants true or false, not a {kind}"));
            Err(failed(ctx, problem.hint("assert(x == 1, \"what it means\")")))
        }
    }
}

/// How many differences are told.
const DIFFERENCES: usize = 8;

fn assert_eq(ctx: &C, left: &Dynamic, right: &Dynamic) -> Outcome<()> {
    let (left, right) = (json(ctx, left.clone())?, json(ctx, right.clone())?);
    if left == right {
        return Ok(());
    }
    let mut problem = Problem::new(Kind::Thrown, "the two differ");
    let mut lines = Vec::new();
    tell::leaves("", &left, &right, &mut |path, left, right| {
        let place = if path.is_empty() { String::new() } else { format!("{}: ", path.trim_start_matches('/')) };
        lines.push(format!("{place}left {left}, right {right}"));
    });
    let more = lines.len().saturating_sub(DIFFERENCES);
    for line in lines.into_iter().take(DIFFERENCES) {
        problem = problem.quote(line);
    }
    if more > 0 {
        problem = problem.quote(format!("and {more} more"));
    }
    Err(failed(ctx, problem))
}

/// Ends the test: nothing that it could catch.
fn failed(ctx: &C, mut problem: Problem) -> Box<EvalAltResult> {
    let position = ctx.call_position();
    problem.place = Some(At {
        script: ctx.call_source().unwrap_or_default().to_owned(),
        line: position.line().unwrap_or(0),
        column: position.position().unwrap_or(0),
        calls: Vec::new(),
    });
    errors::end(&problem, position)
}
