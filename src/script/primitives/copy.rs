//! Copying and verifying with pods.

use super::pvc::volume_of;
use super::{Args, Effect, Primitive, Type, option, param};
use crate::cluster::proof::{Report, Side};
use crate::cluster::pv::{Backend, Pv};
use crate::cluster::pvc::Pvc;
use crate::cluster::{Fact, known, text, workload};
use crate::copy::agent;
use crate::copy::hot;
use crate::copy::plan::{Placement, node};
use crate::copy::pod::{Compare, How, PodPlan, Task, check_patch};
use crate::copy::run;
use crate::copy::waive::Waive;
use crate::script::enter::Step;
use crate::words::clock::{Clock, human_seconds};
use crate::words::size::human_bytes;
use crate::words::{Json, Problem, PvcRef, names};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The agent's image of this version.
pub const IMAGE: &str = concat!("docker.io/pvmigrate/agent:", env!("CARGO_PKG_VERSION"));

pub const TABLE: &[Primitive] = &[
    Primitive {
        name: "run_copy_pod",
        params: &[
            param("source", Type::Object("PersistentVolumeClaim")),
            param("target", Type::Object("PersistentVolumeClaim")),
        ],
        options: &[
            option("pass", Type::Text, "hot (the default) while the workload runs; final when nobody writes"),
            option(
                "since",
                Type::Text,
                "`started_at` of the last good pass: only what may have changed since is read again",
            ),
            option("since_end", Type::Text, "`ended_at` of that pass; without it the target is trusted in nothing"),
            option(
                "cloned",
                Type::Bool,
                "the target is a clone that was made after the source was flushed at `since` (sync_pvc)",
            ),
            option("allow_empty", Type::Bool, "an empty source empties the target, which is refused otherwise"),
            option("engine", Type::Text, "native (the default) or rsync, where the image has it"),
            option("workers", Type::Int, "threads of the native engine: as many as make it faster if absent or 0"),
            option("bandwidth", Type::Size, "content that is read per second, at most"),
            option("waive", Type::List, "what the target may be without, if it cannot hold it: owner, acl, xattr"),
            option(
                "verify",
                Type::Text,
                "full, changed or metadata: the same pod compares the two afterwards, as verify_copy does with this mode",
            ),
            option("verified_since", Type::Text, "for changed: a time before which all content was verified"),
            option("node", Type::Text, "where to run; where the source is used if absent"),
            option("workload", Type::AnyObject, "whose pods say where they may run"),
            option("image", Type::Text, "the agent's image"),
            option("pod_patch", Type::Map, "merged over the pod"),
            option("run_as", Type::Int, "a user instead of root"),
            option("timeout_s", Type::Int, "for nodes to let the source go before a final pass: 300"),
        ],
        returns: "map",
        doc: "Copies a claim to another with a pod that mounts both, the source read-only. Returns the report: `files_copied`, \
              `bytes_copied`, `files_total`, `bytes_total`, `started_at`, `ended_at`, `seconds`, `waived`, `node`, and `summary` for people; `proof` is what verify_copy would return.\nA final pass begins only when no \
              pod uses the source and every node that did has let it go; from then on it is watched.",
        example: r#"let image = "registry.example/pvmigrate/agent:0.1.0";
let source = get_pvc("shop", "data");
let target = create_pvc(source, #{ class: "fast", image: image });
let report = run_copy_pod(source, target, #{ image: image });
delete_pvc(target);
report.ok && report.files_copied > 0"#,
        effect: Effect::Write,
        rights: &[
            ("create delete get list watch", "", "pods"),
            ("get", "", "pods/log"),
            ("get watch", "", "nodes"),
            ("get", "", "persistentvolumes"),
            ("list", "", "events"),
        ],
        run: |step, args| Box::pin(run_copy_pod(step, args)),
    },
    Primitive {
        name: "sync_pvc",
        params: &[param("pvc", Type::Object("PersistentVolumeClaim"))],
        options: &[
            option("node", Type::Text, "where to run; where the claim is used if absent"),
            option("workload", Type::AnyObject, "whose pods say where they may run"),
            option("image", Type::Text, "the agent's image"),
            option("pod_patch", Type::Map, "merged over the pod"),
            option("run_as", Type::Int, "a user instead of root"),
        ],
        returns: "map",
        doc: "Writes what a node has of a claim in its memory to the claim's disk, with a pod that mounts it read-only. Returns the report: \
              `started_at` (`since` to a first pass over a clone that is made afterwards), `seconds` and `node`.",
        example: r#"let image = "registry.example/pvmigrate/agent:0.1.0";
sync_pvc(get_pvc("shop", "data"), #{ image: image }).started_at != """#,
        effect: Effect::Write,
        rights: &[
            ("create delete get list watch", "", "pods"),
            ("get", "", "pods/log"),
            ("get", "", "nodes"),
            ("get", "", "persistentvolumes"),
            ("list", "", "events"),
        ],
        run: |step, args| Box::pin(sync_pvc(step, args)),
    },
    Primitive {
        name: "verify_copy",
        params: &[
            param("source", Type::Object("PersistentVolumeClaim")),
            param("target", Type::Object("PersistentVolumeClaim")),
        ],
        options: &[
            option("pass", Type::Text, "hot (the default) or final: then the result is what rebind relies on"),
            option(
                "mode",
                Type::Text,
                "full (the default): all content; changed: the content of what changed since; metadata: none",
            ),
            option("since", Type::Text, "for changed: a time before which all content was verified"),
            option(
                "totals",
                Type::Map,
                "`files_total` and `bytes_total` of the last copy's report, for the progress; counted ahead if absent",
            ),
            option(
                "watch",
                Type::Bool,
                "with no final pass before it: sees that nobody has the source, and goes on to look",
            ),
            option("waive", Type::List, "what is not compared, only counted: owner, acl, xattr"),
            option("node", Type::Text, "where to run; where the source is used if absent"),
            option("workload", Type::AnyObject, "whose pods say where they may run"),
            option("image", Type::Text, "the agent's image"),
            option("pod_patch", Type::Map, "merged over the pod"),
            option("run_as", Type::Int, "a user instead of root"),
        ],
        returns: "map",
        doc: "Compares two claims in a pod of its own (right after a copy `verify` of run_copy_pod saves that pod): names, metadata and content. Returns the report: `source_digest`, `files`, \
              `bytes`, `hashed_files`, `differences`, `differences_total`, and of those `differences_by_kind` and what is `waived` \
              (maps of `owner`, `acl`, `xattr` to numbers of them). A final verification throws `Mismatch` if anything differs and `Voided` \
              if somebody used the source since the final pass.",
        example: r#"let image = "registry.example/pvmigrate/agent:0.1.0";
let source = get_pvc("shop", "data");
let target = create_pvc(source, #{ class: "fast", image: image });
let stopped = stop(get_object("Deployment", "shop", "web"));
run_copy_pod(source, target, #{ image: image });
let report = verify_copy(source, target, #{ image: image });
start(stopped);
delete_pvc(target);
report.files > 0 && report.differences.is_empty()"#,
        effect: Effect::Write,
        rights: &[
            ("create delete get list watch", "", "pods"),
            ("get", "", "pods/log"),
            ("get watch", "", "nodes"),
            ("get", "", "persistentvolumes"),
            ("list", "", "events"),
        ],
        run: |step, args| Box::pin(verify_copy(step, args)),
    },
];

pub(super) fn image(args: &Args) -> String {
    args.option_text("image").unwrap_or(IMAGE).to_owned()
}

/// The pod spec in a workload's template.
pub(super) fn template_spec(object: &Json) -> Json {
    workload::template(object).map_or(Json::Null, |template| template["spec"].clone())
}

/// Chooses the node, and notes which nodes use the source now.
pub(super) async fn place(
    step: &Step,
    claim: &PvcRef,
    source: Pvc<'_>,
    asked: Option<&str>,
) -> Result<Option<String>, Problem> {
    let pods = step
        .cluster()
        .list_all(&known("Pod"), &claim.namespace)
        .await
        .map_err(|e| e.problem("see where the source is used", None))?;
    let books = step.session.door.ledger.books();
    let mut placement = Placement {
        asked: asked.map(str::to_owned),
        shared: is_shared(step, source).await?,
        was_on: books.nodes.get(claim).cloned().unwrap_or_default(),
        ..Placement::default()
    };
    for pod in &pods {
        let uses = workload::claims_of_spec(&pod["spec"]).contains(&claim.name.as_str());
        let over = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        let on = text(pod, "/spec/nodeName");
        if uses && !over && !on.is_empty() && !crate::cluster::units::ours(pod) {
            placement.in_use_on.insert(on.to_owned());
            if !placement.was_on.contains(on) {
                step.fact(Fact::Used { claim: claim.clone(), node: on.to_owned() })?;
            }
        }
    }
    if placement.asked.is_none() && placement.in_use_on.is_empty() {
        placement.ready = ready_among(step, &placement.was_on).await?;
    }
    Ok(node(&placement))
}

/// The same when nobody uses the source any more: where it was used last, of the nodes that are Ready.
async fn place_last(
    step: &Step,
    source: Pvc<'_>,
    asked: Option<&str>,
    ready: BTreeSet<String>,
) -> Result<Option<String>, Problem> {
    Ok(node(&Placement {
        asked: asked.map(str::to_owned),
        shared: is_shared(step, source).await?,
        was_on: step.session.door.ledger.books().nodes.get(&source.reference()).cloned().unwrap_or_default(),
        ready,
        ..Placement::default()
    }))
}

/// True if every node sees the same bytes. A directory of a node is another one on each, whatever its modes say.
async fn is_shared(step: &Step, source: Pvc<'_>) -> Result<bool, Problem> {
    if !source.modes().iter().any(|mode| mode.ends_with("Many")) || source.volume().is_empty() {
        return Ok(false);
    }
    let volume = step.guarding(step.get("PersistentVolume", "", source.volume())).await?;
    Ok(!matches!(Pv(&volume).backend(), Some(Backend::Path(_))))
}

async fn ready_among(step: &Step, nodes: &BTreeSet<String>) -> Result<BTreeSet<String>, Problem> {
    let mut ready = BTreeSet::new();
    for name in nodes {
        let seen = step.find("Node", "", name).await?;
        let conditions = seen.as_ref().and_then(|seen| seen["status"]["conditions"].as_array()).into_iter().flatten();
        if conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
            ready.insert(name.clone());
        }
    }
    Ok(ready)
}

/// Those of the nodes on which the pod may start: when nobody uses a volume any more, it may be used elsewhere.
async fn open_to(step: &Step, nodes: BTreeSet<String>, plan: &PodPlan) -> Result<BTreeSet<String>, Problem> {
    let tolerations = hot::tolerations(&plan.like, &plan.patch);
    let mut open = BTreeSet::new();
    for name in nodes {
        let node = step.find("Node", "", &name).await?;
        if node.is_some_and(|node| hot::closed(&node, &tolerations).is_none()) {
            open.insert(name);
        }
    }
    Ok(open)
}

fn is_final(args: &Args) -> Result<bool, Problem> {
    match args.option_text("pass").unwrap_or("hot") {
        "hot" => Ok(false),
        "final" => Ok(true),
        other => Err(Problem::usage(format!("`{other}` is not a pass")).hint("hot or final")),
    }
}

fn waive(args: &Args) -> Result<Waive, Problem> {
    let words = args.option_list("waive").unwrap_or_default();
    Waive::parse(words.iter().map(String::as_str)).map_err(|word| {
        Problem::usage(format!("`{}` cannot be waived", names::plain(word))).hint("owner, acl or xattr")
    })
}

/// Only what is not the agent's own choice is said, so that pods of either kind of agent understand it.
fn how(args: &Args) -> Result<How, Problem> {
    let engine = match args.option_text("engine").unwrap_or("native") {
        "native" => None,
        "rsync" => Some("rsync".to_owned()),
        other => return Err(Problem::usage(format!("`{other}` is not an engine")).hint("native or rsync")),
    };
    let workers = match args.option_int("workers").filter(|workers| *workers != 0) {
        Some(workers) if !(1..=64).contains(&workers) => {
            return Err(Problem::usage(format!("{workers} is no number of threads"))
                .hint("1 to 64, or 0: as many as make it faster"));
        }
        workers => workers,
    };
    Ok(How {
        engine,
        workers,
        bandwidth: args.option_size("bandwidth"),
        cloned: args.option_bool("cloned"),
        waive: waive(args)?,
    })
}

/// The pod that copies or compares two claims, on no node yet.
fn pod_plan(step: &Step, args: &Args, task: Task) -> Result<PodPlan, Problem> {
    let (source, target) = (Pvc(args.json(0)), Pvc(args.json(1)));
    if source.namespace() != target.namespace() {
        return Err(Problem::usage("a pod mounts claims of one namespace only"));
    }
    if source.uid() == target.uid() {
        return Err(Problem::usage("source and target are the same claim"));
    }
    if target.volume().is_empty() {
        return Err(no_volume(target));
    }
    if source.is_block() != target.is_block() {
        let modes = [source, target].map(|claim| if claim.is_block() { "Block" } else { "Filesystem" });
        return Err(Problem::usage(format!("a volume of mode {} is not copied to one of mode {}", modes[0], modes[1])));
    }
    Ok(PodPlan { target: Some(target.name().to_owned()), ..source_plan(step, args, task)? })
}

fn no_volume(claim: Pvc<'_>) -> Problem {
    Problem::refused(format!("claim `{}` has no volume", claim.reference()))
}

/// The pod that has the first claim only.
fn source_plan(step: &Step, args: &Args, task: Task) -> Result<PodPlan, Problem> {
    let source = Pvc(args.json(0));
    if source.volume().is_empty() {
        return Err(no_volume(source));
    }
    let patch = args.option("pod_patch").cloned().unwrap_or(Json::Null);
    check_patch(&patch)?;
    Ok(PodPlan {
        name: String::new(),
        namespace: source.namespace().to_owned(),
        run: step.run().to_string(),
        task,
        image: image(args),
        source: Some(source.name().to_owned()),
        target: None,
        is_block: source.is_block(),
        node: None,
        like: template_spec(args.option("workload").unwrap_or(&Json::Null)),
        run_as: args.option_int("run_as"),
        patch,
    })
}

async fn sync_pvc(step: Step, args: Args) -> Result<Json, Problem> {
    let source = Pvc(args.json(0));
    let name = source.reference();
    let mut plan = source_plan(&step, &args, Task::Sync)?;
    plan.node = place(&step, &name, source, args.option_text("node")).await?;
    let ended = run::run(&step.session.door, &step.id, &plan, &name.to_string(), &step.session.voice).await?;
    let mut report = ended.report;
    if report["ok"] != json!(true) {
        return Err(run::sync_problem(&report, &format!("`{name}`")));
    }
    report["node"] = json!(ended.node);
    Ok(report)
}

async fn run_copy_pod(step: Step, args: Args) -> Result<Json, Problem> {
    let last = is_final(&args)?;
    let claim = Pvc(args.json(0));
    let (source, asked) = (claim.reference(), args.option_text("node"));
    let door = step.session.door.clone();
    let [since, since_end] = ["since", "since_end"].map(|name| args.option_text(name).map(str::to_owned));
    if since.is_none() && since_end.is_some() {
        return Err(Problem::usage("`since_end` is the end of the pass whose beginning is `since`"));
    }
    if args.option_bool("cloned") && (since.is_none() || since_end.is_some()) {
        return Err(Problem::usage(
            "a clone that no pass has seen has `since`, the time of its flush, and no `since_end`",
        ));
    }
    let allow_empty = args.option_bool("allow_empty");
    let proof = match (args.option_text("verify"), args.option_text("verified_since")) {
        (Some(mode), since) => Some(compare(mode, since, "verified_since")?),
        (None, Some(_)) => return Err(Problem::usage("`verified_since` is for `verify`, which is not there")),
        (None, None) => None,
    };
    let mut question = proof.as_ref().map(|proof| Question::of(&args, last, &proof.mode));
    // A pod that was planned before a crash keeps its node: the journal has it with the write.
    let task = Task::Copy { last, since, since_end, allow_empty, how: how(&args)?, proof };
    let mut plan = pod_plan(&step, &args, task)?;
    // A final pass that an earlier process began was not watched from its beginning: it is seen to its end, and made again.
    let unwatched = last && door.journal.recorded(&step.id.part("create-1")).is_some();
    if last {
        let from = step.guarding(volume_of(&step, args.json(0))).await?;
        let to = step.guarding(volume_of(&step, args.json(1))).await?;
        // Whatever was verified before this pass says nothing about what it will write.
        if door.ledger.books().verified.contains_key(Pv(&from).name()) {
            step.fact(Fact::Voided { source: Pv(&from).name().to_owned(), why: "another final pass".into() })?;
        }
        let timeout = args.option_int("timeout_s").and_then(|s| u64::try_from(s).ok()).unwrap_or(300);
        step.guarding(door.watch_over(&source)).await?;
        let clean = run::nodes_are_clean(&door, &source, &from, Duration::from_secs(timeout));
        let clean = step.guarding(clean).await?;
        plan.node = place_last(&step, claim, asked, open_to(&step, clean, &plan).await?).await?;
        if let Some(question) = &mut question {
            question.volumes = Some((from, to));
        }
    } else {
        plan.node = place(&step, &source, claim, asked).await?;
    }
    let ended = run::run(&door, &step.id, &plan, &source.to_string(), &step.session.voice).await?;
    if ended.report["ok"] != json!(true) {
        return Err(run::copy_problem(&ended.report, &format!("`{source}`")));
    }
    if unwatched {
        return Err(not_watched(&source, "the final pass began before this process did"));
    }
    let mut report = ended.report;
    let said = report.as_object_mut().and_then(|report| report.remove("proof")).unwrap_or_default();
    report["node"] = json!(ended.node);
    report["summary"] = json!(copied(&report));
    counted(&mut report, &["waived"]);
    if let Some(question) = question {
        report["proof"] = question.answer(&step, said, ended.node)?;
    }
    Ok(report)
}

/// What is to be compared, as a script says it.
fn compare(mode: &str, since: Option<&str>, word: &str) -> Result<Compare, Problem> {
    if !matches!(mode, "full" | "changed" | "metadata") {
        return Err(Problem::usage(format!("`{mode}` is not a way to verify")).hint("full, changed or metadata"));
    }
    if mode == "changed" && since.is_none() {
        return Err(Problem::usage(format!("to verify what changed, `{word}` must say since when")));
    }
    if mode != "changed" && since.is_some() {
        return Err(Problem::usage(format!("`{word}` is for `changed`, not for `{mode}`")));
    }
    Ok(Compare { mode: mode.to_owned(), since: since.map(str::to_owned) })
}

async fn verify_copy(step: Step, args: Args) -> Result<Json, Problem> {
    let last = is_final(&args)?;
    let claim = Pvc(args.json(0));
    let (source, asked) = (claim.reference(), args.option_text("node"));
    let door = step.session.door.clone();
    let what = compare(args.option_text("mode").unwrap_or("full"), args.option_text("since"), "since")?;
    let mut question = Question::of(&args, last, &what.mode);
    let task = Task::Verify { last, what, totals: totals(&args), workers: None, waive: waive(&args)? };
    let mut plan = pod_plan(&step, &args, task)?;
    plan.node = if last {
        let used_on = door.ledger.books().nodes.get(&source).cloned().unwrap_or_default();
        let ready = ready_among(&step, &used_on).await?;
        place_last(&step, claim, asked, open_to(&step, ready, &plan).await?).await?
    } else {
        place(&step, &source, claim, asked).await?
    };
    let watches = last && args.option("watch") == Some(&json!(true));
    if watches {
        question.unwatched = door.journal.recorded(&step.id.part("create-1")).is_some();
        let volume = step.guarding(volume_of(&step, args.json(0))).await?;
        step.guarding(door.watch_over(&source)).await?;
        step.guarding(run::nodes_are_clean(&door, &source, &volume, Duration::from_secs(300))).await?;
    }
    if last {
        let both = async { Ok((volume_of(&step, args.json(0)).await?, volume_of(&step, args.json(1)).await?)) };
        question.volumes = Some(step.guarding(both).await?);
    }
    let ended = run::run(&door, &step.id, &plan, &source.to_string(), &step.session.voice).await?;
    question.answer(&step, ended.report, ended.node)
}

/// A verification, as far as it is known before its pod is made.
struct Question {
    source: PvcRef,
    last: bool,
    mode: String,
    is_block: bool,
    /// Of a final one: what is compared.
    volumes: Option<(Json, Json)>,
    /// It began before this process did, and nobody had watched.
    unwatched: bool,
}

impl Question {
    fn of(args: &Args, last: bool, mode: &str) -> Self {
        let source = Pvc(args.json(0));
        let (mode, is_block) = (mode.to_owned(), source.is_block());
        Question { source: source.reference(), last, mode, is_block, volumes: None, unwatched: false }
    }

    /// Judges the report: that of a final one is signed and goes into the books.
    fn answer(self, step: &Step, mut report: Json, node: String) -> Result<Json, Problem> {
        let Question { source, last, mode, is_block, volumes, unwatched } = self;
        let door = &step.session.door;
        // Nobody knows what was written since the final pass if nobody has watched: whatever differs, it is made again.
        if last {
            match door.vigil(&source) {
                Some(Ok(())) => {}
                Some(Err(why)) => return Err(not_watched(&source, &why)),
                None => return Err(not_watched(&source, "nobody has watched since the final pass")),
            }
        }
        if !report.is_object() {
            return Err(run::verify_problem(&report, &format!("`{source}`")));
        }
        report["node"] = json!(node);
        report["summary"] = json!(compared(&report, is_block));
        counted(&mut report, &["waived", "differences_by_kind"]);
        // What goes away while it is looked at is the life of a busy volume; nobody goes by a hot comparison.
        let fault = if !last && report["kind"] == "vanished" { &Json::Null } else { &report["kind"] };
        let unreadable = report.get("source_digest").is_none() || !fault.is_null();
        if unreadable || (last && report["ok"] != json!(true)) {
            return Err(run::verify_problem(&report, &format!("`{source}`")));
        }
        if unwatched {
            return Err(not_watched(&source, "the comparison began before this process did"));
        }
        let Some((from, to)) = volumes else { return Ok(report) };
        let waived = serde_json::from_value(report["waived"].clone()).unwrap_or_default();
        let (at, books) = (Clock.stamp(), door.ledger.books());
        let side = |volume: &Json, of: &str| {
            let handle = match Pv(volume).backend() {
                Some(Backend::Handle(_, handle)) => handle,
                Some(Backend::Path(path)) => path,
                Some(Backend::Nfs(server, path)) => format!("{server}:{path}"),
                _ => String::new(),
            };
            let told = |what: &str| report[format!("{of}_{what}")].as_str().unwrap_or_default().to_owned();
            let (volume, uid) = (Pv(volume).name().to_owned(), Pv(volume).uid().to_owned());
            Side { volume, uid, handle, digest: told("digest"), read_at: told("read_at") }
        };
        let number = |field: &str| report[field].as_u64().unwrap_or_default();
        let signed = Report {
            run: step.run().to_string(),
            claim: source.to_string(),
            source: side(&from, "source"),
            target: side(&to, "target"),
            mode: mode.clone(),
            verified_at: at.clone(),
            node: text(&report, "/node").to_owned(),
            files: number("files"),
            bytes: number("bytes"),
            hashed_files: number("hashed_files"),
            hashed_bytes: number("hashed_bytes"),
            waived: BTreeMap::clone(&waived),
            workloads: Report::frozen(&books, &source),
            nodes: books.nodes.get(&source).into_iter().flatten().cloned().collect(),
            watched_from: door.vigils.from(&source),
            downtime_s: None,
        };
        step.fact(signed.sign())?;
        step.fact(Fact::Verified {
            claim: source.clone(),
            source: Pv(&from).name().to_owned(),
            source_uid: Pv(&from).uid().to_owned(),
            target: Pv(&to).name().to_owned(),
            target_uid: Pv(&to).uid().to_owned(),
            digest: text(&report, "/source_digest").to_owned(),
            mode,
            at,
            waived,
        })?;
        Ok(report)
    }
}

/// Of what knows both; a report that does not is none of the agent's.
fn totals(args: &Args) -> Option<[u64; 2]> {
    let report = args.option("totals")?;
    Some([report["files_total"].as_u64()?, report["bytes_total"].as_u64()?])
}

/// Maps that a script finds whether there is anything in them or not.
fn counted(report: &mut Json, fields: &[&str]) {
    for field in fields {
        if report[*field].is_null() {
            report[*field] = json!({});
        }
    }
}

fn not_watched(claim: &PvcRef, why: &str) -> Problem {
    Problem::new(crate::words::Kind::Voided, format!("the last copy of `{claim}` proves nothing: {why}"))
        .retryable()
        .hint("make the final pass and its verification again")
}

/// `2020 of 2024 files, 200 MiB in 0.6s (333 MiB/s)`, or of a device `3 MiB of 64 MiB in 0.6s (5 MiB/s)`
fn copied(report: &Json) -> String {
    let number = |field: &str| report[field].as_u64().unwrap_or(0);
    let (bytes, seconds) = (number("bytes_copied"), report["seconds"].as_f64().unwrap_or(0.0));
    // The rate of a moment says nothing.
    let rate =
        if seconds < 0.1 { String::new() } else { format!(" ({}/s)", human_bytes((bytes as f64 / seconds) as u64)) };
    let (done, all) = (number("files_copied"), number("files_total"));
    let of = if report["engine"] == agent::block::NAME {
        format!("{} of {}", human_bytes(bytes), human_bytes(number("bytes_total")))
    } else {
        format!("{done} of {all} files, {}", human_bytes(bytes))
    };
    format!("{of} in {}{rate}", human_seconds(seconds))
}

/// `2024 files, 200 MiB in 0.4s`
fn compared(report: &Json, is_block: bool) -> String {
    let bytes = human_bytes(report["bytes"].as_u64().unwrap_or(0));
    let seconds = human_seconds(report["seconds"].as_f64().unwrap_or(0.0));
    if is_block {
        return format!("{bytes} in {seconds}");
    }
    format!("{} files, {bytes} in {seconds}", report["files"].as_u64().unwrap_or(0))
}
