//! How records stand in ConfigMaps. Pure: texts and numbers only.
//!
//! The records of a run are lines in *segments*, numbered from 1, each small enough to be replaced whole with every record
//! that is added; the last one is open, those before it are sealed. What steps came to stands in *payloads* beside them, as
//! long as the branch of the step has not ended: afterwards nobody asks for it. What is long stands in *texts*, named by
//! their digest.

use crate::journal::{Event, T};
use crate::words::{Json, Kind, Problem, RunId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The version of this layout. The records in it are those of journal v1.
pub const VERSION: u64 = 1;
/// What a segment or a payload holds at most.
pub const SEGMENT_BYTES: usize = 32 << 10;
/// A longer line becomes a text.
pub const LINE_BYTES: usize = 24 << 10;
/// What one ConfigMap of a text holds at most: the server takes 1 MiB with everything around it.
pub const TEXT_BYTES: usize = 900 << 10;
/// A shorter result stays in its line.
const SHORT: usize = 200;

/// Stands for the result of a step that is kept no more, because its branch has ended.
pub const DROPPED: &str = "dropped";

/// Label: what a ConfigMap of ours holds.
pub const RECORD: &str = "pvmigrate.io/record";

pub fn head_name(run: &RunId) -> String {
    format!("pvmigrate-{run}")
}

pub fn segment_name(run: &RunId, number: u64) -> String {
    format!("pvmigrate-{run}-{number:06}")
}

/// The number of a segment, if it is one of this run.
pub fn segment_number(run: &RunId, name: &str) -> Option<u64> {
    let digits = name.strip_prefix(&format!("pvmigrate-{run}-"))?;
    let number = digits.parse().ok()?;
    (segment_name(run, number) == name).then_some(number)
}

pub fn payload_name(run: &RunId, payload: &str) -> String {
    format!("pvmigrate-{run}-p{payload}")
}

pub fn text_name(run: &RunId, text: &str, part: usize) -> String {
    match part {
        0 => format!("pvmigrate-{run}-t{text}"),
        _ => format!("pvmigrate-{run}-t{text}-{part}"),
    }
}

pub fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}

/// Cuts a text so that each part fits into a ConfigMap.
pub fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while rest.len() > TEXT_BYTES {
        let (part, after) = rest.split_at(rest.floor_char_boundary(TEXT_BYTES));
        parts.push(part);
        rest = after;
    }
    parts.push(rest);
    parts
}

/// Where a result stands that is not in its line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paid {
    /// The payload; its key is the number of the record.
    pub r#in: String,
    pub is: String,
}

/// A record as its line says it.
#[derive(Debug, PartialEq)]
pub struct Line {
    pub event: Event,
    pub paid: Option<Paid>,
}

/// The result of a step or a branch, if it is to stand beside its line.
pub fn result_beside(event: &Event) -> Option<String> {
    if !matches!(event.t, T::Done | T::End) || event.err.is_some() {
        return None;
    }
    event.out.as_ref().map(Json::to_string).filter(|text| text.len() > SHORT)
}

/// True if what stands beside the record goes when a branch of the script ends, and not only with the whole run.
pub fn goes_early(event: &Event) -> bool {
    let branches = event.id.as_str().matches('~').count();
    branches > usize::from(event.t == T::End)
}

/// The line of a record, with its newline; with `paid` its result is left out.
pub fn encode(event: &Event, paid: Option<&Paid>) -> String {
    let mut line = serde_json::to_value(event).expect("records are plain data");
    if let Some(paid) = paid {
        line["out"] = Json::Null;
        line.as_object_mut().map(|line| line.remove("out"));
        line["paid"] = json!(paid);
    }
    format!("{line}\n")
}

/// The line that stands for a long one.
pub fn elsewhere(text: &str) -> String {
    format!("{}\n", json!({"text": text}))
}

/// What a line says, or the text that it stands in.
#[derive(Debug, PartialEq)]
pub enum Said {
    Line(Box<Line>),
    Text(String),
}

/// # Errors
/// If it is no record of this version.
pub fn decode(line: &str) -> Result<Said, Problem> {
    let mut value: Value = serde_json::from_str(line).map_err(|e| damaged("a line is no JSON").because(&e))?;
    if let Some(text) = value.get("text").and_then(Value::as_str) {
        return Ok(Said::Text(text.to_owned()));
    }
    let paid = value.as_object_mut().and_then(|line| line.remove("paid"));
    let paid = paid.map(serde_json::from_value).transpose().map_err(|e| damaged("a line is no record").because(&e))?;
    let event = serde_json::from_value(value).map_err(|e| damaged("a line is no record").because(&e))?;
    Ok(Said::Line(Box::new(Line { event, paid })))
}

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    pub v: u64,
    pub run: String,
    pub number: u64,
    /// The digest of its records.
    pub is: String,
    /// The process that wrote it last.
    pub writer: String,
}

/// The data of a segment.
pub fn segment_data(run: &RunId, number: u64, writer: &str, records: &str) -> Json {
    let about = Segment { v: VERSION, run: run.to_string(), number, is: digest(records), writer: writer.to_owned() };
    json!({"segment.json": json!(about).to_string(), "records": records})
}

/// The records of a segment.
///
/// # Errors
/// If it is not this segment of this run, or not what was written.
pub fn segment_records(run: &RunId, number: u64, data: &Json) -> Result<String, Problem> {
    let name = segment_name(run, number);
    let about = data["segment.json"].as_str().unwrap_or_default();
    let about: Value = serde_json::from_str(about)
        .map_err(|e| damaged(&format!("ConfigMap `{name}` is no segment of it")).because(&e))?;
    check_version(&about["v"])?;
    let about: Segment = serde_json::from_value(about)
        .map_err(|e| damaged(&format!("ConfigMap `{name}` is no segment of it")).because(&e))?;
    if about.run != run.as_str() || about.number != number {
        return Err(damaged(&format!("ConfigMap `{name}` holds segment {} of run {}", about.number, about.run)));
    }
    let records = data["records"].as_str().unwrap_or_default();
    if digest(records) != about.is || !(records.is_empty() || records.ends_with('\n')) {
        return Err(damaged(&format!("ConfigMap `{name}` was changed by somebody else")));
    }
    Ok(records.to_owned())
}

/// # Errors
/// If another version wrote it.
pub fn check_version(v: &Json) -> Result<(), Problem> {
    if *v == VERSION {
        return Ok(());
    }
    Err(Problem::new(
        Kind::Diverged,
        format!("the journal in the cluster is of another version of pvmigrate (format {v})"),
    )
    .hint("use the version that began the run"))
}

pub fn damaged(why: &str) -> Problem {
    Problem::new(Kind::Diverged, format!("the journal in the cluster is damaged: {why}"))
        .hint("nothing was sent; keep the run's ConfigMaps and compare them with the cluster by hand")
}

/// The result that a line says stands in this payload.
///
/// # Errors
/// If it does not.
pub fn paid_out(event: &Event, paid: &Paid, payload: Option<&Json>) -> Result<Json, Problem> {
    let text = payload.and_then(|data| data[event.n.to_string()].as_str()).unwrap_or_default();
    if digest(text) != paid.is {
        return Err(damaged(&format!("the result of record {} is missing (payload {})", event.n, paid.r#in)));
    }
    serde_json::from_str(text).map_err(|e| damaged(&format!("the result of record {} is no JSON", event.n)).because(&e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::StepId;

    fn run() -> RunId {
        RunId::parse("0123abcd").unwrap()
    }

    #[test]
    fn names_of_segments_are_read_back_and_no_others() {
        assert_eq!(segment_name(&run(), 12), "pvmigrate-0123abcd-000012");
        for (name, number) in [
            ("pvmigrate-0123abcd-000012", Some(12)),
            ("pvmigrate-0123abcd-1000012", Some(1_000_012)),
            ("pvmigrate-0123abcd-12", None),
            ("pvmigrate-0123abcd-p12", None),
            ("pvmigrate-0123abcd", None),
            ("pvmigrate-0123abce-000012", None),
        ] {
            assert_eq!(segment_number(&run(), name), number, "{name}");
        }
    }

    #[test]
    fn a_line_says_what_its_record_says() {
        let mut event = Event::new(T::Done, &StepId::new("root/1"), "get_pv");
        event.out = Some(json!({"a": "b".repeat(300)}));
        let text = encode(&event, None);
        let Said::Line(line) = decode(&text).unwrap() else { panic!("{text}") };
        assert_eq!(*line, Line { event: event.clone(), paid: None });
        let beside = result_beside(&event).unwrap();
        let paid = Paid { r#in: "x".into(), is: digest(&beside) };
        let Said::Line(line) = decode(&encode(&event, Some(&paid))).unwrap() else { panic!() };
        assert_eq!((line.event.out.clone(), line.paid.as_ref()), (None, Some(&paid)));
        let payload = json!({"0": beside});
        assert_eq!(paid_out(&line.event, &paid, Some(&payload)), Ok(event.out.clone().unwrap()));
        for payload in [None, Some(json!({})), Some(json!({"0": "{}"}))] {
            assert_eq!(paid_out(&line.event, &paid, payload.as_ref()).unwrap_err().kind, Kind::Diverged);
        }
    }

    #[test]
    fn only_what_steps_came_to_stands_beside() {
        let long = Some(json!("x".repeat(SHORT + 1)));
        for (t, beside) in [(T::Done, true), (T::Beat, false), (T::Fact, false), (T::End, true)] {
            let event = Event { out: long.clone(), ..Event::new(t, &StepId::new("root/1"), "x") };
            assert_eq!(result_beside(&event).is_some(), beside, "{t:?}");
        }
        let short = Event { out: Some(json!("x")), ..Event::new(T::Done, &StepId::new("root/1"), "x") };
        assert_eq!(result_beside(&short), None);
    }

    #[test]
    fn a_segment_is_read_only_as_it_was_written() {
        let data = segment_data(&run(), 3, "w", "{}\n");
        assert_eq!(segment_records(&run(), 3, &data), Ok("{}\n".to_owned()));
        let other = RunId::parse("99999999").unwrap();
        let mut edited = data.clone();
        edited["records"] = "{ }\n".into();
        let mut newer = data.clone();
        newer["segment.json"] = data["segment.json"].as_str().unwrap().replace("\"v\":1", "\"v\":2").into();
        for (run, number, data, why) in [
            (&run(), 4, &data, "holds segment 3"),
            (&other, 3, &data, "of run 0123abcd"),
            (&run(), 3, &edited, "was changed by somebody else"),
            (&run(), 3, &json!({"records": "x"}), "is no segment of it"),
            (&run(), 3, &newer, "another version of pvmigrate (format 2)"),
        ] {
            let problem = segment_records(run, number, data).unwrap_err();
            assert_eq!(problem.kind, Kind::Diverged);
            assert!(problem.message.contains(why), "{problem}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = format!("a{}", "ä".repeat(TEXT_BYTES));
        let parts = parts(&text);
        assert_eq!(parts.len(), 3);
        assert!(parts.iter().all(|part| part.len() <= TEXT_BYTES));
        assert_eq!(parts.concat(), text);
        assert_eq!(super::parts("a"), ["a"]);
    }
}
