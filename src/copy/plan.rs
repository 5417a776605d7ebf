//! Where a copy pod runs: pure.

use std::collections::BTreeSet;

/// What decides about the node.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// Asked for by the script.
    pub asked: Option<String>,
    /// Nodes of pods that use the source now, and are not finished.
    pub in_use_on: BTreeSet<String>,
    /// Nodes that used it before.
    pub was_on: BTreeSet<String>,
    /// Nodes that are Ready.
    pub ready: BTreeSet<String>,
    /// Several nodes may mount the source at once.
    pub shared: bool,
}

/// The node that the pod is bound to; `None` leaves it to the scheduler.
///
/// A volume for one node is copied where its workload has it: anywhere else the attachment would wait for ever.
pub fn node(placement: &Placement) -> Option<String> {
    if placement.asked.is_some() {
        return placement.asked.clone();
    }
    if placement.shared {
        return None;
    }
    if let Some(node) = placement.in_use_on.first() {
        return Some(node.clone());
    }
    // It was last attached there: nothing has to move. A node that is away is no place to wait for.
    placement.was_on.iter().find(|node| placement.ready.contains(*node)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_runs_where_its_source_is() {
        let set = |nodes: &[&str]| nodes.iter().map(|node| (*node).to_owned()).collect::<BTreeSet<_>>();
        for (asked, in_use, was, ready, shared, want) in [
            (None, &["node2"][..], &["node1"][..], &["node1", "node2"][..], false, Some("node2")),
            (Some("node1"), &["node2"], &[], &[], false, Some("node1")),
            (None, &["node2"], &[], &["node2"], true, None),
            (None, &[], &["node1"], &["node1"], false, Some("node1")),
            (None, &[], &["node1"], &["node2"], false, None),
            (None, &[], &[], &["node1"], false, None),
        ] {
            let placement = Placement {
                asked: asked.map(str::to_owned),
                in_use_on: set(in_use),
                was_on: set(was),
                ready: set(ready),
                shared,
            };
            assert_eq!(node(&placement).as_deref(), want, "{placement:?}");
        }
    }
}
