//! How many replicas each ReplicaSet of a Deployment gets.
//!
//! Pure arithmetic over sizes and availability. Called by `deployment`. What must stay true: with a rolling update never
//! more than `replicas + surge` pods are asked for, and no available pod goes that the promise needs.

use super::{DESIRED, MAX, Value};
use crate::lab::act::pod::born;
use crate::lab::store::text;

/// What a Deployment allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub replicas: i64,
    /// So many more at a time.
    pub surge: i64,
    /// So many fewer available at a time.
    pub unavailable: i64,
}

impl Limits {
    pub fn of(deployment: &Value) -> Limits {
        let spec = &deployment["spec"];
        let replicas = spec["replicas"].as_i64().unwrap_or(1);
        if spec["strategy"]["type"] == "Recreate" {
            return Limits { replicas, surge: 0, unavailable: 0 };
        }
        let rolling = &spec["strategy"]["rollingUpdate"];
        let surge = resolve(&rolling["maxSurge"], replicas, true);
        let mut unavailable = resolve(&rolling["maxUnavailable"], replicas, false);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Limits { replicas, surge, unavailable: unavailable.min(replicas) }
    }
}

/// A number, or a percentage of the replicas.
pub fn resolve(value: &Value, replicas: i64, is_rounded_up: bool) -> i64 {
    match value {
        Value::Null => resolve(&Value::from("25%"), replicas, is_rounded_up),
        Value::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|number| number.parse().ok()).unwrap_or_default();
            (percent * replicas + if is_rounded_up { 99 } else { 0 }) / 100
        }
        other => other.as_i64().unwrap_or_default(),
    }
}

/// How many replicas a ReplicaSet shall have.
pub fn replicas(set: &Value) -> i64 {
    set["spec"]["replicas"].as_i64().unwrap_or_default()
}

fn available(set: &Value) -> i64 {
    set["status"]["availableReplicas"].as_i64().unwrap_or_default()
}

/// The size of the new ReplicaSet now.
pub fn new_size(limits: &Limits, new: &Value, old: &[&Value]) -> i64 {
    let size = replicas(new);
    if size >= limits.replicas {
        return limits.replicas;
    }
    let total = size + old.iter().map(|set| replicas(set)).sum::<i64>();
    let room = limits.replicas + limits.surge - total;
    size + room.clamp(0, limits.replicas - size)
}

/// The old ReplicaSets that get smaller now, and their sizes.
pub fn old_sizes<'a>(limits: &Limits, new: &Value, old: &[&'a Value]) -> Vec<(&'a Value, i64)> {
    let old: Vec<&Value> = old.iter().copied().filter(|set| replicas(set) > 0).collect();
    let total = replicas(new) + old.iter().map(|set| replicas(set)).sum::<i64>();
    let promised = limits.replicas - limits.unavailable;
    let may_go = total - promised - (replicas(new) - available(new));
    let mut sizes: Vec<(&Value, i64)> = old.into_iter().map(|set| (set, replicas(set))).collect();
    let mut gone = 0;
    // Sick pods first: nobody misses them.
    for (set, size) in &mut sizes {
        let sick = (*size - available(set)).clamp(0, (may_go - gone).max(0));
        *size -= sick;
        gone += sick;
    }
    let still: i64 = available(new) + sizes.iter().map(|(set, _)| available(set)).sum::<i64>();
    let mut spare = (still - promised).min(may_go - gone);
    for (_, size) in &mut sizes {
        let step = (*size).clamp(0, spare.max(0));
        *size -= step;
        spare -= step;
    }
    sizes.retain(|(set, size)| replicas(set) != *size);
    sizes
}

/// The sizes after the number of replicas was changed.
pub fn scaled<'a>(
    limits: &Limits,
    deployment: &Value,
    new: Option<&'a Value>,
    old: &[&'a Value],
) -> Vec<(&'a Value, i64)> {
    let mut active: Vec<&Value> = old.iter().copied().chain(new).filter(|set| replicas(set) > 0).collect();
    if active.len() <= 1 {
        let newest = new.or_else(|| old.last().copied());
        return active.first().copied().or(newest).map(|set| (set, limits.replicas)).into_iter().collect();
    }
    let is_saturated = |new: &Value| {
        replicas(new) == limits.replicas
            && available(new) == limits.replicas
            && text(&new["metadata"]["annotations"][DESIRED]) == limits.replicas.to_string()
    };
    if new.is_some_and(is_saturated) {
        return old.iter().filter(|set| replicas(set) > 0).map(|set| (*set, 0)).collect();
    }
    if deployment["spec"]["strategy"]["type"] == "Recreate" {
        return Vec::new();
    }
    let allowed = if limits.replicas > 0 { limits.replicas + limits.surge } else { 0 };
    let to_add = allowed - active.iter().map(|set| replicas(set)).sum::<i64>();
    // The largest first; of the same size the newest when growing, the oldest when shrinking.
    active.sort_by_key(|set| born(set));
    if to_add > 0 {
        active.reverse();
    }
    active.sort_by_key(|set| std::cmp::Reverse(replicas(set)));
    let mut added = 0;
    let mut sizes = Vec::new();
    for set in active {
        let fraction = if limits.replicas == 0 { -replicas(set) } else { fraction(limits, deployment, set) };
        let left = to_add - added;
        let step = match to_add {
            0 => 0,
            1.. => fraction.min(left),
            _ => fraction.max(left),
        };
        added += step;
        sizes.push((set, replicas(set) + step));
    }
    if let Some((_, size)) = sizes.first_mut() {
        *size = (*size + to_add - added).max(0);
    }
    sizes
}

/// By how much one ReplicaSet grows when all grow alike.
fn fraction(limits: &Limits, deployment: &Value, set: &Value) -> i64 {
    let before = text(&set["metadata"]["annotations"][MAX]).parse::<i64>().ok().filter(|max| *max > 0);
    let before = before.or(deployment["status"]["replicas"].as_i64()).unwrap_or_default().max(1);
    let exact = (replicas(set) * (limits.replicas + limits.surge)) as f64 / before as f64;
    exact.round() as i64 - replicas(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(replicas: i64, available: i64) -> Value {
        json!({
            "metadata": {"annotations": {MAX: "10"}},
            "spec": {"replicas": replicas}, "status": {"availableReplicas": available},
        })
    }

    #[test]
    fn limits_are_rounded_in_favour_of_the_pods() {
        let cases = [
            (4, json!("25%"), json!("25%"), (1, 1)),
            (1, json!("25%"), json!("25%"), (1, 0)),
            (10, json!("25%"), json!("25%"), (3, 2)),
            (3, json!(0), json!("10%"), (0, 1)),
            (2, json!(1), json!(5), (1, 2)),
            (0, json!("25%"), json!("25%"), (0, 0)),
        ];
        for (replicas, surge, unavailable, expected) in cases {
            let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
            let spec = json!({"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}});
            let limits = Limits::of(&json!({"spec": spec}));
            assert_eq!((limits.surge, limits.unavailable), expected, "{spec}");
        }
    }

    #[test]
    fn a_rolling_update_keeps_its_promises() {
        let limits = Limits { replicas: 4, surge: 1, unavailable: 1 };
        // new (size, available), old, the new one's next size, the old one's.
        let cases = [
            ((0, 0), (4, 4), 1, None),
            ((1, 0), (4, 4), 1, Some(3)),
            ((1, 0), (3, 3), 2, None),
            ((2, 1), (3, 3), 2, Some(2)),
            ((2, 0), (3, 3), 2, None),
            ((4, 3), (1, 1), 4, Some(0)),
            ((1, 0), (4, 2), 1, Some(3)),
            ((5, 5), (0, 0), 4, None),
        ];
        for (new, old, expected_new, expected_old) in cases {
            let (new, old) = (set(new.0, new.1), set(old.0, old.1));
            let size = new_size(&limits, &new, &[&old]);
            assert_eq!(size, expected_new, "{new} {old}");
            if size == replicas(&new) {
                let sizes = old_sizes(&limits, &new, &[&old]);
                assert_eq!(sizes.first().map(|(_, size)| *size), expected_old, "{new} {old}");
            }
        }
    }

    #[test]
    fn a_change_of_replicas_in_a_rollout_is_shared() {
        let deployment = json!({"spec": {"strategy": {"type": "RollingUpdate"}}});
        let (new, old) = (set(2, 0), set(8, 8));
        let sizes = |limits: Limits| -> Vec<i64> {
            scaled(&limits, &deployment, Some(&new), &[&old]).into_iter().map(|(_, size)| size).collect()
        };
        assert_eq!(sizes(Limits { replicas: 20, surge: 0, unavailable: 0 }), [16, 4]);
        assert_eq!(sizes(Limits { replicas: 5, surge: 0, unavailable: 0 }), [4, 1]);
        assert_eq!(sizes(Limits { replicas: 0, surge: 0, unavailable: 0 }), [0, 0]);
    }
}
