//! The order of a merged list: the patch's items in the order the patch wants, the server's own items kept between them.
//!
//! Pure, and only of lists whose items can be told apart: scalars by themselves, maps by their merge key.

use serde_json::Value;

/// What tells an item from the others.
pub fn identity<'a>(item: &'a Value, key: Option<&str>) -> &'a Value {
    match key {
        Some(key) => item.get(key).unwrap_or(&Value::Null),
        None => item,
    }
}

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    let wanted = identity(item, key);
    list.iter().position(|candidate| identity(candidate, key) == wanted)
}

/// `merged`, ordered: items named by `patch_order` as it has them, the rest as `server_order` has them, woven together by
/// where the server had both.
pub fn arrange(merged: Vec<Value>, patch_order: &[Value], server_order: &[Value], key: Option<&str>) -> Vec<Value> {
    let (mut wanted, mut rest): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(patch_order, item, key).is_some());
    sort(&mut wanted, patch_order, key);
    sort(&mut rest, server_order, key);
    weave(rest, wanted, server_order, key)
}

/// Kubernetes sorts with a comparison that says "before" for every item without a place, which turns such items around.
/// An insertion sort, which Kubernetes' sort is for lists this short, gives the same answer.
fn sort(list: &mut [Value], order: &[Value], key: Option<&str>) {
    let before = |a: &Value, b: &Value| match (position(order, a, key), position(order, b, key)) {
        (Some(a), Some(b)) => a < b,
        _ => true,
    };
    for end in 1..list.len() {
        let mut at = end;
        while at > 0 && before(&list[at], &list[at - 1]) {
            list.swap(at, at - 1);
            at -= 1;
        }
    }
}

fn weave(rest: Vec<Value>, wanted: Vec<Value>, server_order: &[Value], key: Option<&str>) -> Vec<Value> {
    let mut woven = Vec::with_capacity(rest.len() + wanted.len());
    let mut rest = rest.into_iter().peekable();
    for next in wanted {
        let place = position(server_order, &next, key);
        while let Some(own) = rest
            .next_if(|own| matches!((position(server_order, own, key), place), (Some(own), Some(next)) if own < next))
        {
            woven.push(own);
        }
        woven.push(next);
    }
    woven.extend(rest);
    woven
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_patch_wins_and_the_server_keeps_its_places() {
        for (merged, patch, server, want) in [
            ("abc", "b", "abc", "abc"),
            ("abcn", "n", "abc", "nabc"),
            ("abcn", "bn", "abc", "abnc"),
            ("abcn", "nb", "abc", "nabc"),
            ("abc", "ca", "abc", "bca"),
            ("ab", "", "ab", "ab"),
            ("abn", "anb", "ab", "anb"),
        ] {
            let list = |text: &str| text.chars().map(|letter| json!(letter)).collect::<Vec<_>>();
            assert_eq!(
                arrange(list(merged), &list(patch), &list(server), None),
                list(want),
                "{merged} {patch} {server}"
            );
        }
    }
}
