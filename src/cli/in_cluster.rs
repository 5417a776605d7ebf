//! `pvmigrate run SCRIPT … --in-cluster`: a Job executes the run; and what its pods say about its end.
//!
//! The records of the run are made here, so its pod only takes up what is there: with the options as they were checked
//! here, and after a death where the last pod was.

use super::session::{self, InCluster, Reached};
use super::{Failure, Global, OnFailure, Output, Place, ui};
use crate::cluster::account::Rights;
use crate::cluster::keep::{Bookkeeping, Kept, job_is_over};
use crate::cluster::store::runs;
use crate::cluster::{RUN, rbac, text};
use crate::copy::job::{self, JobPlan};
use crate::journal::RunFile;
use crate::script::Script;
use crate::script::primitives::IMAGE;
use crate::script::rights;
use crate::words::{Json, Kind, Problem, RunId, names};
use serde_json::json;

// No doc: it would stand above the help of every script.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Let a Job in the cluster execute the run, in the namespace of its records
    #[arg(long, help_heading = "Run in the cluster")]
    pub in_cluster: bool,
    /// The Job's ServiceAccount [default: pvmigrate]
    #[arg(long, value_name = "NAME", help_heading = "Run in the cluster")]
    pub service_account: Option<String>,
    /// The Job's image [default: that of the copy pods]
    #[arg(long, value_name = "IMAGE", help_heading = "Run in the cluster")]
    pub job_image: Option<String>,
    /// YAML file merged over the Job's pod
    #[arg(long, value_name = "FILE", help_heading = "Run in the cluster")]
    pub job_patch: Option<String>,
}

impl Options {
    /// Those before the script's name and those after it.
    pub fn and(self, other: Options) -> Options {
        Options {
            in_cluster: self.in_cluster || other.in_cluster,
            service_account: other.service_account.or(self.service_account),
            job_image: other.job_image.or(self.job_image),
            job_patch: other.job_patch.or(self.job_patch),
        }
    }

    /// True if the run is for the cluster.
    ///
    /// # Errors
    /// If the others are given without it.
    pub fn are_meant(&self) -> Result<bool, Problem> {
        let others = [&self.service_account, &self.job_image, &self.job_patch];
        if !self.in_cluster && others.iter().any(|one| one.is_some()) {
            return Err(Problem::usage("--service-account, --job-image and --job-patch are for --in-cluster"));
        }
        Ok(self.in_cluster)
    }

    fn account(&self) -> &str {
        self.service_account.as_deref().unwrap_or("pvmigrate")
    }

    fn patch(&self) -> Result<Json, Problem> {
        let Some(path) = &self.job_patch else { return Ok(Json::Null) };
        let text = std::fs::read_to_string(path)
            .map_err(|e| Problem::usage(format!("`--job-patch`: {path} cannot be read")).because(&e))?;
        let patch = serde_yaml_ng::from_str(&text)
            .map_err(|e| Problem::usage(format!("`--job-patch`: {path} is not YAML")).because(&e))?;
        job::check(&patch)?;
        Ok(patch)
    }
}

/// Makes the run and its Job, after everything that would keep it from beginning was looked for.
pub fn submit(global: &Global, script: &Script, values: Json, options: &Options) -> Result<(), Failure> {
    session::needs_a_cluster_that_stays(global)?;
    names::object_name(options.account())?;
    if !global.yes {
        return Err(Failure::from(
            Problem::usage("nobody can be asked inside a pod: --in-cluster needs --yes")
                .hint("without --in-cluster the plan is shown first, and asked about"),
        ));
    }
    if global.store == Some(Place::Dir) {
        return Err(Failure::from(Problem::usage(
            "a pod's files go with it: --in-cluster keeps the run in the cluster",
        )));
    }
    if global.on_failure == OnFailure::Rollback {
        return Err(Failure::from(
            Problem::usage(
                "--in-cluster does not take a run back by itself: its account has the rights of the script only",
            )
            .hint("when it has failed, from here: pvmigrate rollback RUN"),
        ));
    }
    let patch = options.patch()?;
    let image = options.job_image.as_deref().or(values["image"].as_str()).unwrap_or(IMAGE).to_owned();
    let global = &Global { store: Some(Place::Cluster), ..global.clone() };
    let runtime = session::runtime()?;
    let reached = session::reach(global, &runtime)?;
    let file = session::new_run(global, &reached, script, values, std::env::args().collect());
    let plan = JobPlan {
        run: &file.run,
        namespace: &file.namespace,
        account: options.account(),
        image: &image,
        patch: &patch,
    };
    let job = job::render(&plan);
    runtime.block_on(stands_in_the_way(&reached, script, &plan, &job))?;
    drop(session::keep_run(global, &reached, &file)?);
    if let Err(problem) = runtime.block_on(make(&reached, &file, &job)) {
        // Nothing has begun: what was made is taken away again, or told.
        let shelf = reached.shelf(&file.namespace);
        let mut failure = Failure::from(problem);
        if runtime.block_on(runs::forget(&shelf, &file.run)).is_err() {
            failure.last.push(format!(
                "its records are left: {}",
                session::line(global, &format!("runs forget {} --force", file.run))
            ));
        }
        return Err(failure);
    }
    tell(&session::settled(global, &file), &file);
    Ok(())
}

async fn stands_in_the_way(reached: &Reached, script: &Script, plan: &JobPlan<'_>, job: &Json) -> Result<(), Problem> {
    let (namespace, account) = (plan.namespace, plan.account);
    let grant = {
        let named = if account == "pvmigrate" { String::new() } else { format!(" --service-account {account}") };
        format!("pvmigrate rbac {} --run-namespace {namespace}{named} | kubectl apply -f -", script.name)
    };
    let cluster = &reached.cluster;
    cluster.has_account(namespace, account).await.map_err(|problem| problem.hint(&grant))?;
    let needs = script.needs().known.into_iter().filter(|need| !rights::is_optional(need)).collect();
    match cluster.rights_of(namespace, account, &needs, &rbac::records()).await? {
        Rights::Enough => {}
        Rights::Missing(missing) => {
            let mut problem = Problem::new(
                Kind::Forbidden,
                format!("the service account `{account}` in namespace `{namespace}` may not do what the run needs"),
            );
            for right in missing {
                problem = problem.quote(format!("it may not {right}"));
            }
            return Err(problem.hint(grant));
        }
        Rights::Unknown => ui::talk(&format!(
            "we may not ask what the service account `{account}` may do: if rights are missing, the run ends before its first change"
        )),
    }
    let tried = cluster.dry_create(&Kept::Job.resource(), namespace, job).await;
    tried.map_err(|e| e.problem("make the Job of the run", None))
}

async fn make(reached: &Reached, file: &RunFile, job: &Json) -> Result<(), Problem> {
    let (cluster, kind) = (&reached.cluster, Kept::Job);
    let made = cluster.keep(&Bookkeeping::default(), kind, &file.namespace, job).await;
    let Err(error) = made else { return Ok(()) };
    // An answer that was lost: a read decides.
    if !error.is_definite()
        && let Ok(Some(there)) = cluster.find(&kind.resource(), &file.namespace, &job::name(&file.run)).await
        && is_of(&there, &file.run)
    {
        return Ok(());
    }
    Err(error.problem("make the Job of the run", None))
}

fn is_of(job: &Json, run: &RunId) -> bool {
    job["metadata"]["labels"][RUN] == run.as_str()
}

fn tell(global: &Global, file: &RunFile) {
    let RunFile { run, namespace, .. } = file;
    let job = job::name(run);
    if global.output == Output::Json {
        ui::print_json(&json!({"run": run, "namespace": namespace, "job": job}));
    } else {
        ui::print(run.as_str());
    }
    ui::talk(&format!("run {run} of {} is executed by Job {namespace}/{job}", file.script));
    for (what, command) in [
        ("to watch it", format!("runs show {run} --follow")),
        ("to go on with it from here, when it has stopped", format!("resume {run}")),
        ("to take it back", format!("rollback {run}")),
        ("to remove its records and its Job, when it is over", format!("runs forget {run}")),
    ] {
        ui::talk(&format!("{what}: {}", session::line(global, &command)));
    }
}

/// Looks for the Job of a run that is to be forgotten.
///
/// # Errors
/// `Refused` if it is still at work.
pub fn finished_job(there: &InCluster, run: &RunId) -> Result<Option<Json>, Problem> {
    let InCluster { runtime, reached, shelf } = there;
    let name = job::name(run);
    let job = match runtime.block_on(reached.cluster.find(&Kept::Job.resource(), &shelf.namespace, &name)) {
        Ok(job) => job.filter(|job| is_of(job, run)),
        // Who may not see Jobs has made none.
        Err(e) if e.is_definite() => None,
        Err(e) => return Err(e.problem("look for the Job of the run", None)),
    };
    match job {
        Some(job) if !job_is_over(&job) => {
            Err(Problem::refused(format!("run {run} is executed by Job {}/{name}", shelf.namespace))
                .hint("wait until it is over: pvmigrate runs show RUN --follow")
                .hint(format!("or end it first: kubectl -n {} delete job {name}", shelf.namespace)))
        }
        job => Ok(job),
    }
}

/// Removes a Job that is over, with its pods.
///
/// # Errors
/// If the server does not do it.
pub fn remove(there: &InCluster, job: &Json) -> Result<(), Problem> {
    let door = Bookkeeping::default();
    there
        .runtime
        .block_on(there.reached.cluster.keep_no_more(&door, Kept::Job, job))
        .map_err(|e| e.problem("remove the Job of the run", None))
}

/// A pod of the Job could not bring the run to its end. If another pod would fare no better, the Job makes none.
pub fn ended_badly(global: &Global, job: &str, failure: &Failure) {
    if !failure.problems.iter().any(is_for_good) {
        ui::talk(&format!("the Job {job} makes another pod, which goes on with the run"));
        return;
    }
    if let Err(problem) = give_up(global, job) {
        ui::talk(&format!("the Job {job} was not told that the run failed for good: {problem}"));
    }
}

/// What another pod would meet again. What passes, and what only means that somebody else is at work, is not.
fn is_for_good(problem: &Problem) -> bool {
    let passing = matches!(problem.kind, Kind::Unreachable | Kind::Timeout | Kind::Interrupted | Kind::Local);
    let others = problem.kind == Kind::Conflict
        && problem
            .object
            .as_ref()
            .is_some_and(|object| object.starts_with("Lease:") || object.starts_with("ConfigMap:"));
    !(passing || others || problem.retryable)
}

fn give_up(global: &Global, name: &str) -> Result<(), Problem> {
    let runtime = session::runtime()?;
    let reached = session::reach(global, &runtime)?;
    let namespace = global.run_namespace.as_deref().unwrap_or_default();
    let doing = "end the Job of the run";
    for _ in 0..3 {
        let found = runtime.block_on(reached.cluster.find(&Kept::Job.resource(), namespace, name));
        let Some(job) = found.map_err(|e| e.problem(doing, None))? else { return Ok(()) };
        if text(&job, "/metadata/labels/pvmigrate.io~1run").is_empty() {
            return Ok(());
        }
        let door = Bookkeeping::default();
        match runtime.block_on(reached.cluster.keep_anew(&door, Kept::Job, &job::given_up(&job))) {
            Err(e) if e.is_conflict() => {}
            ended => return ended.map(|_| ()).map_err(|e| e.problem(doing, None)),
        }
    }
    Err(Problem::new(Kind::Conflict, format!("Job {namespace}/{name} is changed all the time")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_pod_is_made_only_where_it_may_fare_better() {
        let problem = |kind| Problem::new(kind, "x");
        for (problem, for_good) in [
            (problem(Kind::Refused), true),
            (problem(Kind::Forbidden), true),
            (problem(Kind::Mismatch), true),
            (problem(Kind::Diverged), true),
            (problem(Kind::Bug), true),
            (problem(Kind::Conflict), true),
            (problem(Kind::Conflict).object("PersistentVolumeClaim:shop/data"), true),
            (problem(Kind::Conflict).object("Lease:ops/pvmigrate-0123abcd"), false),
            (problem(Kind::Unreachable), false),
            (problem(Kind::Timeout), false),
            (problem(Kind::Interrupted), false),
            (problem(Kind::Copy), true),
            (problem(Kind::Copy).retryable(), false),
        ] {
            assert_eq!(is_for_good(&problem), for_good, "{problem:?}");
        }
    }
}
