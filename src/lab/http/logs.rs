//! What containers wrote: `pods/log`.

use super::path::Place;
use super::{Body, Response, plain};
use crate::lab::core::Core;
use crate::lab::handle::{flag, number_of};
use crate::lab::kind;
use crate::lab::process::Written;
use crate::lab::status::{Cause, Status};
use crate::lab::store::{list_of, text};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

/// A piece of a log that is sent at once.
const PIECE: usize = 64 * 1024;

pub fn answer(core: &Arc<Core>, place: &Place, query: &BTreeMap<String, String>) -> Result<Response, Status> {
    let asked = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let is_set = |name: &str| query.get(name).is_some_and(|text| flag(text));
    let name = &place.name;
    let (tail, most) = numbers(query, name)?;
    for option in ["sinceTime", "sinceSeconds", "timestamps"] {
        if !matches!(asked(option), "" | "false" | "0") {
            return Err(Status::unsimulated(format!("the option {option} of logs")));
        }
    }
    let (uid, container, has_node) = core.look(|state| {
        let pod = state
            .get("Pod", &place.namespace, &place.name)
            .ok_or_else(|| Status::not_found(kind::kind("Pod"), &place.name))?;
        let container = chosen(pod, asked("container"))?;
        let has_node = !text(&pod["spec"]["nodeName"]).is_empty();
        Ok::<_, Status>((text(&pod["metadata"]["uid"]).to_owned(), container, has_node))
    })?;
    if !has_node {
        // There is nobody yet who could be asked.
        let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        return Ok(http::Response::builder().status(204).body(body).expect("the code is a constant that fits"));
    }
    if is_set("previous") {
        return Err(Status::bad_request(format!(
            "previous terminated container \"{container}\" in pod \"{name}\" not found"
        )));
    }
    let log = core.disks.log(&uid, &container);
    let output = core.with_kubelets(|kubelets, _| kubelets.container(&uid, &container).map(|one| one.output()));
    let (path, written) = match output {
        Some((path, written)) if !path.as_os_str().is_empty() => (path, Some(written)),
        // It ran before the lab was started again, and is over.
        _ if log.is_file() => (log, None),
        _ => {
            return Err(Status::bad_request(format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: ContainerCreating"
            )));
        }
    };
    let start = match tail {
        Some(lines) => last_lines(&path, lines),
        None => Ok(0),
    };
    let failed = |e: std::io::Error| Status::new(500, "InternalError", format!("the log cannot be read: {e}"));
    let start = start.map_err(failed)?;
    let limit = most.unwrap_or(u64::MAX);
    if !is_set("follow") {
        let mut file = std::fs::File::open(&path).map_err(failed)?;
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
        return Ok(plain(200, "text/plain", bytes));
    }
    let follow = Follow { path, at: start, left: limit, written };
    let frames = futures::stream::unfold(follow, |mut follow| async {
        let bytes = follow.next().await?;
        Some((bytes.map(|bytes| Frame::data(Bytes::from(bytes))), follow))
    });
    let body: Body = StreamBody::new(frames).boxed_unsync();
    Ok(http::Response::builder()
        .status(200)
        .header(http::header::CONTENT_TYPE, "text/plain")
        .body(body)
        .expect("code and content type are constants that fit"))
}

/// The last lines and the bytes that are wanted.
fn numbers(query: &BTreeMap<String, String>, pod: &str) -> Result<(Option<usize>, Option<u64>), Status> {
    let mut causes = Vec::new();
    let mut number = |name: &str, least: i64, why: &str| -> Result<Option<i64>, Status> {
        let found = number_of::<i64>(query, name)?;
        if let Some(wrong) = found.filter(|found| *found < least) {
            causes.push(Cause::invalid(name, &wrong.into(), why));
        }
        Ok(found)
    };
    let lines = number("tailLines", 0, "must be greater than or equal to 0")?;
    let bytes = number("limitBytes", 1, "must be greater than 0")?;
    // More than that is not simulated, see above.
    number("sinceSeconds", 1, "must be greater than 0")?;
    if !causes.is_empty() {
        let options = kind::Kind { kind: "PodLogOptions", ..kind::CORE };
        return Err(Status::invalid(&options, pod, &causes));
    }
    Ok((lines.and_then(|lines| usize::try_from(lines).ok()), bytes.and_then(|bytes| u64::try_from(bytes).ok())))
}

/// The container that is meant.
fn chosen(pod: &Value, asked: &str) -> Result<String, Status> {
    let names: Vec<&str> = list_of(&pod["spec"]["containers"]).iter().map(|one| text(&one["name"])).collect();
    let name = text(&pod["metadata"]["name"]);
    match (asked, &names[..]) {
        ("", [only]) => Ok((*only).to_owned()),
        ("", many) => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            many.join(" ")
        ))),
        (asked, names) if names.contains(&asked) => Ok(asked.to_owned()),
        (asked, _) => Err(Status::bad_request(format!("container {asked} is not valid for pod {name}"))),
    }
}

/// Where the last lines begin.
fn last_lines(path: &PathBuf, lines: usize) -> std::io::Result<u64> {
    let bytes = std::fs::read(path)?;
    let whole = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if lines == 0 {
        return Ok(bytes.len() as u64);
    }
    let mut breaks = whole.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at as u64 + 1);
    Ok(breaks.nth(lines - 1).unwrap_or(0))
}

struct Follow {
    path: PathBuf,
    at: u64,
    left: u64,
    /// `None`: nothing follows.
    written: Option<tokio::sync::watch::Receiver<Written>>,
}

impl Follow {
    async fn next(&mut self) -> Option<std::io::Result<Vec<u8>>> {
        loop {
            let ended = self.written.as_mut().is_none_or(|written| written.borrow_and_update().ended);
            let mut bytes = Vec::new();
            let read = std::fs::File::open(&self.path).and_then(|mut file| {
                file.seek(SeekFrom::Start(self.at))?;
                file.take(self.left.min(PIECE as u64)).read_to_end(&mut bytes)
            });
            if let Err(error) = read {
                self.left = 0;
                return Some(Err(error));
            }
            self.at += bytes.len() as u64;
            self.left -= bytes.len() as u64;
            if !bytes.is_empty() {
                return Some(Ok(bytes));
            }
            if ended || self.left == 0 {
                return None;
            }
            let changed = self.written.as_mut()?.changed().await;
            if changed.is_err() {
                self.written = None;
            }
        }
    }
}
