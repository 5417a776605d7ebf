//! What a run has proven of one claim, signed off: what was compared and when, that nobody wrote meanwhile, what was done
//! without, and for how long the workload was missing.
//!
//! Pure. Made by the primitives from what they have seen and kept in the journal as a fact, so that a resumed run and any
//! other machine tell the same. Not a guard: those go by the books. What must stay true: the digest is of everything that
//! the report says, in an order that does not depend on who writes it down.

use super::ledger::{Books, Fact};
use crate::words::{Json, ObjectRef, PvcRef};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// One side of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    pub volume: String,
    pub uid: String,
    /// The backend's own name for it.
    pub handle: String,
    /// See `docs/copying.md`.
    pub digest: String,
    /// When reading it began, by the agent's clock.
    pub read_at: String,
}

/// Who was stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frozen {
    /// `Deployment:shop/web`
    pub workload: String,
    pub uid: String,
    /// Of the object as it was when it had been set to 0.
    pub generation: i64,
    pub replicas: i64,
    pub stopped_ms: i64,
    /// When it was Ready again; absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_ms: Option<i64>,
}

/// The report of one claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub run: String,
    /// `shop/data`
    pub claim: String,
    pub source: Side,
    pub target: Side,
    /// full, changed or metadata.
    pub mode: String,
    pub verified_at: String,
    /// Where it was compared.
    pub node: String,
    pub files: u64,
    pub bytes: u64,
    pub hashed_files: u64,
    pub hashed_bytes: u64,
    pub waived: BTreeMap<String, u64>,
    pub workloads: Vec<Frozen>,
    /// The nodes that ran a user of the source and let it go before the final pass.
    pub nodes: Vec<String>,
    /// The version of the pods from which on nobody used the claim, until `verified_at` and until its swap.
    pub watched_from: String,
    /// From the first stop to the last Ready; absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_s: Option<f64>,
}

impl Report {
    /// The workloads of the claim that are stopped now.
    pub fn frozen(books: &Books, claim: &PvcRef) -> Vec<Frozen> {
        let of_claim = books.stopped.iter().filter(|(_, stopped)| stopped.claims.contains(claim));
        let frozen = of_claim.map(|(workload, stopped)| Frozen {
            workload: workload.to_string(),
            uid: stopped.uid.clone(),
            generation: stopped.generation,
            replicas: stopped.replicas,
            stopped_ms: stopped.at_ms,
            ready_ms: None,
        });
        frozen.collect()
    }

    /// The same when a workload that was stopped for it is Ready again. `None`: it was not.
    #[must_use]
    pub fn with_ready(mut self, workload: &ObjectRef, stopped_ms: i64, ready_ms: i64) -> Option<Report> {
        let workload = workload.to_string();
        let is_it = |one: &&mut Frozen| one.workload == workload && one.stopped_ms == stopped_ms;
        let one = self.workloads.iter_mut().find(is_it)?;
        one.ready_ms = Some(ready_ms);
        let begun = self.workloads.iter().map(|one| one.stopped_ms).min()?;
        let ready: Option<Vec<i64>> = self.workloads.iter().map(|one| one.ready_ms).collect();
        self.downtime_s = ready.and_then(|all| all.into_iter().max()).map(|end| (end - begun).max(0) as f64 / 1000.0);
        Some(self)
    }

    /// The fact that keeps it.
    pub fn sign(self) -> Fact {
        let source = self.source.volume.clone();
        let report = serde_json::to_value(self).expect("a report is plain data");
        let digest = digest(&report);
        Fact::Signed { source, report, digest }
    }
}

/// blake3 of the report as JSON without white space, keys in the order of their bytes.
pub fn digest(report: &Json) -> String {
    blake3::hash(canonical(report).as_bytes()).to_hex().to_string()
}

fn canonical(value: &Json) -> String {
    match value {
        Json::Object(fields) => {
            let sorted: BTreeMap<&String, &Json> = fields.iter().collect();
            let parts: Vec<String> =
                sorted.into_iter().map(|(key, value)| format!("{}:{}", json!(key), canonical(value))).collect();
            format!("{{{}}}", parts.join(","))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// The claims of a run by its facts: of each source the last report with `digest`, whether that `fits`, whether the claim
/// was `swapped`, and why the comparison was `voided` since, if it was.
pub fn claims<'a>(facts: impl IntoIterator<Item = &'a Json>) -> Vec<Json> {
    let mut claims: Vec<Json> = Vec::new();
    for fact in facts {
        let of = |claim: &Json| claim["report"]["source"]["volume"] == fact["source"];
        match fact["fact"].as_str() {
            Some("signed") => {
                let before = claims.iter().find(|claim| of(claim));
                let is_swapped = before.is_some_and(|claim| claim["swapped"] == true);
                // The same comparison, signed once more when its workload runs again, is not better than it was.
                let is_same = |claim: &&Json| {
                    claim["report"]["verified_at"] == fact["report"]["verified_at"]
                        && claim["report"]["target"] == fact["report"]["target"]
                };
                let voided = before.filter(is_same).map_or(Json::Null, |claim| claim["voided"].clone());
                claims.retain(|claim| !of(claim));
                let fits =
                    fact["digest"] == digest(&fact["report"]) && fact["source"] == fact["report"]["source"]["volume"];
                claims.push(json!({
                    "claim": fact["report"]["claim"], "report": fact["report"], "digest": fact["digest"], "fits": fits,
                    "swapped": is_swapped, "voided": voided,
                }));
            }
            Some("swapped") => {
                // The way back of an earlier one: its claim is where it was.
                let is_back = |claim: &Json| {
                    let [source, target] = ["source", "target"].map(|side| &claim["report"][side]["volume"]);
                    *target == fact["source"] && *source == fact["target"]
                };
                for claim in &mut claims {
                    if of(claim) {
                        claim["swapped"] = true.into();
                    } else if is_back(claim) {
                        claim["swapped"] = false.into();
                        claim["voided"] = "it was taken back".into();
                    }
                }
            }
            Some("voided") => {
                claims.iter_mut().filter(|claim| of(claim)).for_each(|claim| claim["voided"] = fact["why"].clone());
            }
            _ => {}
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let side = |volume: &str| Side { volume: volume.into(), digest: "d".into(), ..Side::default() };
        let frozen = |name: &str, stopped_ms| Frozen {
            workload: ObjectRef::new("Deployment", "shop", name).to_string(),
            uid: "u".into(),
            generation: 3,
            replicas: 1,
            stopped_ms,
            ready_ms: None,
        };
        Report {
            run: "0123abcd".into(),
            claim: PvcRef::new("shop", "data").to_string(),
            source: side("old"),
            target: side("new"),
            mode: "full".into(),
            verified_at: String::new(),
            node: "node1".into(),
            files: 12,
            bytes: 50_000,
            hashed_files: 24,
            hashed_bytes: 100_000,
            waived: BTreeMap::from([("owner".into(), 2)]),
            workloads: vec![frozen("web", 1_000), frozen("cache", 2_000)],
            nodes: vec!["node1".into()],
            watched_from: "77".into(),
            downtime_s: None,
        }
    }

    fn signed(report: Report) -> Json {
        serde_json::to_value(report.sign()).unwrap()
    }

    #[test]
    fn the_downtime_is_from_the_first_stop_to_the_last_ready() {
        let [web, cache] = ["web", "cache"].map(|name| ObjectRef::new("Deployment", "shop", name));
        let one = report().with_ready(&web, 1_000, 9_000).unwrap();
        assert_eq!(one.downtime_s, None);
        assert_eq!(one.clone().with_ready(&cache, 2_000, 5_500).unwrap().downtime_s, Some(8.0));
        assert_eq!(one.with_ready(&cache, 2_000, 13_500).unwrap().downtime_s, Some(12.5));
        // Another outage, of the way back.
        assert_eq!(report().with_ready(&web, 50_000, 60_000), None);
    }

    #[test]
    fn whatever_is_changed_in_a_report_does_not_fit_its_digest() {
        let fact = signed(report());
        let fits = |fact: &Json| claims([fact])[0]["fits"] == true;
        assert!(fits(&fact));
        // As another program may write it down.
        let mut turned = fact.clone();
        let fields: Vec<_> = fact["report"].as_object().unwrap().iter().rev().collect();
        turned["report"] = fields.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let [one, other] = [&turned, &fact].map(Json::to_string);
        assert!(one != other && fits(&turned));
        for (pointer, value) in [
            ("/report/files", json!(13)),
            ("/report/source/digest", json!("e")),
            ("/report/waived", json!({})),
            ("/report/workloads/0/generation", json!(4)),
            ("/report/nodes", json!([])),
            ("/report/downtime_s", json!(1.0)),
            ("/report/more", json!(1)),
            ("/digest", json!("0")),
        ] {
            let mut changed = fact.clone();
            match changed.pointer_mut(pointer) {
                Some(field) => *field = value,
                None => changed["report"][pointer.rsplit('/').next().unwrap()] = value,
            }
            assert!(!fits(&changed), "{pointer}");
        }
    }

    #[test]
    fn of_each_volume_the_last_report_counts_with_what_came_after() {
        let web = ObjectRef::new("Deployment", "shop", "web");
        let (first, last) = (signed(report()), signed(report().with_ready(&web, 1_000, 9_000).unwrap()));
        let swapped = json!({"fact": "swapped", "source": "old"});
        let voided = json!({"fact": "voided", "source": "old", "why": "it is taken back"});
        let all = claims([&first, &swapped, &last]);
        assert_eq!((all.len(), &all[0]["swapped"], &all[0]["voided"]), (1, &json!(true), &Json::Null));
        assert_eq!(all[0]["report"]["workloads"][0]["ready_ms"], 9_000);
        assert_eq!(claims([&first, &voided])[0]["voided"], "it is taken back");
        assert_eq!(claims([&voided, &first])[0]["voided"], Json::Null);
        assert_eq!(claims([&first, &voided, &last])[0]["voided"], "it is taken back");
        let anew = signed(Report { verified_at: "later".into(), ..report() });
        assert_eq!(claims([&first, &voided, &anew])[0]["voided"], Json::Null);
        let swapped = json!({"fact": "swapped", "source": "old", "target": "new"});
        let back = json!({"fact": "swapped", "source": "new", "target": "old"});
        let all = claims([&first, &swapped, &last, &back]);
        assert_eq!((&all[0]["swapped"], &all[0]["voided"]), (&json!(false), &json!("it was taken back")));
        assert!(claims([&swapped]).is_empty());
    }
}
