//! Tells all stories to a server and judges what it says by what the real one had said.

use super::compare::{Allowed, Verdict, differ, judge, refusal, table};
use super::golden::{self, Said};
use super::normal::{Answer, normal};
use super::run::{IN_VAIN, tell};
use super::server::Server;
use super::story::{Topic, given, topics};
use futures::StreamExt;
use serde_json::Value;
use std::collections::BTreeMap;

/// So many stories at once.
const AT_ONCE: usize = 6;
/// These wait for real pods and namespaces to go: they begin first.
const LONG: [&str; 6] = ["namespaces", "pods", "statefulset", "deployment", "daemonset", "job"];

/// One judged step.
#[derive(Debug, Clone)]
pub struct Line {
    pub topic: String,
    pub story: String,
    pub step: usize,
    pub title: String,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, Default)]
pub struct Report {
    pub lines: Vec<Line>,
}

/// All stories, what they brought, comparable.
pub async fn tell_all(server: &Server, topics: &[Topic]) -> BTreeMap<String, Said> {
    let given = given();
    let stories = topics.iter().flat_map(|topic| topic.stories.iter().map(move |story| (topic, story)));
    let mut stories: Vec<_> = stories.collect();
    stories.sort_by_key(|(topic, _)| !LONG.contains(&topic.name.as_str()));
    let given = &given;
    let told = futures::stream::iter(stories)
        .map(|(topic, story)| async move {
            let started = std::time::Instant::now();
            let told = tell(server, topic, story, given).await;
            if std::env::var_os("PVMIGRATE_STORIES_TIMES").is_some() {
                eprintln!("{:6.1?} {}/{}", started.elapsed(), topic.name, story.name);
            }
            (topic.name.clone(), story.name.clone(), normal(server, &told))
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let mut all: BTreeMap<String, Said> = BTreeMap::new();
    for (topic, story, answers) in told {
        all.entry(topic).or_default().insert(story, answers);
    }
    all
}

/// The stories told to a server, judged by the recorded answers.
pub async fn replay(server: &Server) -> Report {
    let topics = topics();
    let said = tell_all(server, &topics).await;
    let recorded = topics.iter().map(|topic| (topic.name.clone(), golden::read(&topic.name).unwrap_or_default()));
    judged(&recorded.collect(), &said, &table())
}

/// Every story of `said` judged by `expected`.
pub fn judged(expected: &BTreeMap<String, Said>, said: &BTreeMap<String, Said>, allowed: &[Allowed]) -> Report {
    let mut report = Report::default();
    for (topic, stories) in said {
        for (story, answers) in stories {
            let expected = expected.get(topic).and_then(|stories| stories.get(story));
            let expected = expected.unwrap_or_else(|| panic!("{topic}/{story} is not recorded"));
            report.lines.extend(story_judged(topic, story, expected, answers, allowed));
        }
    }
    report
}

fn story_judged(topic: &str, story: &str, expected: &[Answer], got: &[Answer], allowed: &[Allowed]) -> Vec<Line> {
    let mut lines = Vec::new();
    let line = |step: usize, title: &str, verdict: Verdict| Line {
        topic: topic.to_owned(),
        story: story.to_owned(),
        step,
        title: title.to_owned(),
        verdict,
    };
    let name = format!("{topic}/{story}");
    for (n, want) in expected.iter().enumerate() {
        // A step that was not recorded came between: scenery that was refused, or a wait in vain.
        let Some(have) = got.get(n).filter(|have| have.step == want.step) else {
            let verdict = match got.get(n).or(got.last()) {
                Some(have) if refusal(have).is_some() => Verdict::Refused(refusal(have).unwrap_or_default()),
                Some(have) => Verdict::Wrong(vec![unreached(want, have)]),
                None => Verdict::Wrong(vec![super::compare::Difference {
                    pointer: String::new(),
                    expected: Value::String(want.step.clone()),
                    got: Value::Null,
                }]),
            };
            lines.push(line(n, &want.step, verdict));
            return lines;
        };
        let verdict = judge(&name, n, want, have, allowed);
        let ends = matches!(verdict, Verdict::Refused(_)) || have.code == IN_VAIN;
        lines.push(line(n, &want.step, verdict));
        if ends {
            return lines;
        }
    }
    if let Some(more) = got.get(expected.len()) {
        let verdict = match refusal(more) {
            Some(words) => Verdict::Refused(words),
            None => Verdict::Wrong(vec![unreached_end(more)]),
        };
        lines.push(line(expected.len(), &more.step, verdict));
    }
    lines
}

fn unreached(want: &Answer, have: &Answer) -> super::compare::Difference {
    let expected = Value::String(format!("to get to `{}`", want.step));
    let got = serde_json::json!({"stopped at": have.step, "code": have.code, "body": have.body});
    super::compare::Difference { pointer: String::new(), expected, got }
}

fn unreached_end(more: &Answer) -> super::compare::Difference {
    let got = serde_json::json!({"stopped at": more.step, "code": more.code, "body": more.body});
    super::compare::Difference { pointer: String::new(), expected: Value::String("the end".into()), got }
}

impl Report {
    pub fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        self.lines.iter().filter(|line| is(&line.verdict)).count()
    }

    /// Panics with every wrong step: story, step, pointer, expected, got.
    pub fn assert_nothing_is_wrong(&self) {
        let mut text = String::new();
        for line in &self.lines {
            let Verdict::Wrong(differences) = &line.verdict else { continue };
            text += &format!("\n{}/{} step {}: {}\n", line.topic, line.story, line.step, line.title);
            for difference in differences.iter().take(12) {
                let (expected, got) = (&difference.expected, &difference.got);
                text += &format!("  {}\n    expected {expected}\n    got      {got}\n", difference.pointer);
            }
        }
        assert!(text.is_empty(), "the servers disagree:{text}");
    }
}

/// Where two recordings of the same server differ, in words.
pub fn unstable(one: &BTreeMap<String, Said>, two: &BTreeMap<String, Said>) -> Vec<String> {
    let mut found = Vec::new();
    for (topic, stories) in two {
        for (story, answers) in stories {
            let before = one.get(topic).and_then(|stories| stories.get(story));
            let before = before.map(|answers| as_value(answers)).unwrap_or_default();
            let mut differences = Vec::new();
            differ("", &before, &as_value(answers), &mut differences);
            found.extend(differences.iter().map(|difference| {
                format!("{topic}/{story}{}: {} | {}", difference.pointer, difference.expected, difference.got)
            }));
        }
    }
    found
}

fn as_value(answers: &[Answer]) -> Value {
    let line = |answer: &Answer| serde_json::json!({"step": answer.step, "code": answer.code, "body": answer.body});
    Value::Array(answers.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(phase: &str) -> BTreeMap<String, Said> {
        let body = json!({"status": {"phase": phase}});
        let answer = Answer { step: "GET @pvc/c".into(), code: 200, content: String::new(), retry_after: None, body };
        BTreeMap::from([("t".to_owned(), Said::from([("s".to_owned(), vec![answer])]))])
    }

    #[test]
    fn an_unchanged_answer_is_equal_and_a_changed_one_is_wrong() {
        let report = judged(&said("Bound"), &said("Bound"), &[]);
        assert_eq!(report.count(|verdict| *verdict == Verdict::Equal), 1);
        report.assert_nothing_is_wrong();
        let report = judged(&said("Bound"), &said("Lost"), &[]);
        assert_eq!(report.count(|verdict| matches!(verdict, Verdict::Wrong(_))), 1);
        let panic = std::panic::catch_unwind(|| report.assert_nothing_is_wrong()).unwrap_err();
        let words = panic.downcast_ref::<String>().unwrap();
        for part in ["t/s step 0: GET @pvc/c", "/body/status/phase", "expected \"Bound\"", "got      \"Lost\""] {
            assert!(words.contains(part), "{part} in {words}");
        }
    }

    #[test]
    fn a_story_that_stops_early_is_wrong_and_one_that_is_refused_is_counted() {
        let expected = said("Bound");
        let mut stopped = said("Bound");
        let answers = stopped.get_mut("t").unwrap().get_mut("s").unwrap();
        answers[0] = Answer { step: "wait @pvc/c".into(), code: IN_VAIN, ..answers[0].clone() };
        let report = judged(&expected, &stopped, &[]);
        assert_eq!(report.count(|verdict| matches!(verdict, Verdict::Wrong(_))), 1);
        let mut refused = stopped;
        let answers = refused.get_mut("t").unwrap().get_mut("s").unwrap();
        answers[0].code = 501;
        answers[0].body = json!({"message": "pvmigrate lab does not simulate jobs"});
        let report = judged(&expected, &refused, &[]);
        assert_eq!(report.count(|verdict| matches!(verdict, Verdict::Refused(_))), 1);
    }

    #[test]
    fn the_recorded_answers_agree_with_themselves_and_a_changed_one_is_noticed() {
        let all: BTreeMap<String, Said> =
            topics().iter().map(|topic| (topic.name.clone(), golden::read(&topic.name).unwrap_or_default())).collect();
        judged(&all, &all, &[]).assert_nothing_is_wrong();
        let mut changed = all.clone();
        let answers = changed.values_mut().flat_map(BTreeMap::values_mut).find(|answers| !answers.is_empty());
        answers.expect("something is recorded")[0].code += 1;
        let report = judged(&all, &changed, &[]);
        assert_eq!(report.count(|verdict| matches!(verdict, Verdict::Wrong(_))), 1);
    }
}
