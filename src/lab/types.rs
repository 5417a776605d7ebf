//! Of what type a field is, and what the real server says of a value that is of another.
//!
//! Not whether a value makes sense (`rules`): only what can be read at all. The table has the fields that are used;
//! what it does not have is taken as it comes. Called by `handle` on every body and on what a patch made.

use super::kind::Kind;
use super::quantity::{NOT_A_QUANTITY, Quantity};
use super::rules::is_base64;
use serde_json::{Map, Value};

/// How a field is read.
enum Type {
    Text,
    /// With the name of its width.
    Number(&'static str),
    Bool,
    Time,
    Texts,
    TextMap,
    BytesMap,
    Amounts,
    One(&'static Shape),
    Many(&'static Shape),
    Any,
}

/// An object of known fields.
struct Shape {
    /// Go's name of it; empty: that of the kind.
    name: &'static str,
    fields: &'static [(&'static str, Type)],
    /// Whether these are all its fields: others are dropped.
    whole: bool,
}

use Type::{Amounts, Any, Bool, BytesMap, Many, Number, One, Text, TextMap, Texts, Time};

const INT32: Type = Number("Uint32");
const INT64: Type = Number("Uint64");

static META: Shape = Shape {
    name: "ObjectMeta",
    fields: &[
        ("name", Text),
        ("generateName", Text),
        ("namespace", Text),
        ("selfLink", Text),
        ("uid", Text),
        ("resourceVersion", Text),
        ("generation", INT64),
        ("creationTimestamp", Time),
        ("deletionTimestamp", Time),
        ("deletionGracePeriodSeconds", INT64),
        ("labels", TextMap),
        ("annotations", TextMap),
        ("ownerReferences", Many(&OWNER)),
        ("finalizers", Texts),
        ("clusterName", Text),
        ("managedFields", Any),
    ],
    whole: true,
};
static METADATA: Type = One(&META);
static OWNER: Shape = Shape {
    name: "OwnerReference",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("name", Text),
        ("uid", Text),
        ("controller", Bool),
        ("blockOwnerDeletion", Bool),
    ],
    whole: true,
};
static SELECTOR: Shape = Shape {
    name: "LabelSelector",
    fields: &[("matchLabels", TextMap), ("matchExpressions", Many(&REQUIREMENT))],
    whole: true,
};
static REQUIREMENT: Shape = Shape {
    name: "LabelSelectorRequirement",
    fields: &[("key", Text), ("operator", Text), ("values", Texts)],
    whole: true,
};
static RESOURCES: Shape =
    Shape { name: "ResourceRequirements", fields: &[("limits", Amounts), ("requests", Amounts)], whole: true };
static CLAIM: Shape = Shape {
    name: "PersistentVolumeClaimSpec",
    fields: &[
        ("accessModes", Texts),
        ("selector", One(&SELECTOR)),
        ("resources", One(&RESOURCES)),
        ("volumeName", Text),
        ("storageClassName", Text),
        ("volumeMode", Text),
        ("dataSource", Any),
    ],
    whole: true,
};
static VOLUME: Shape = Shape {
    name: "PersistentVolumeSpec",
    fields: &[
        ("capacity", Amounts),
        ("accessModes", Texts),
        ("persistentVolumeReclaimPolicy", Text),
        ("storageClassName", Text),
        ("mountOptions", Texts),
        ("volumeMode", Text),
    ],
    whole: false,
};
static CONTAINER: Shape = Shape {
    name: "Container",
    fields: &[
        ("name", Text),
        ("image", Text),
        ("command", Texts),
        ("args", Texts),
        ("workingDir", Text),
        ("resources", One(&RESOURCES)),
        ("imagePullPolicy", Text),
        ("terminationMessagePath", Text),
        ("terminationMessagePolicy", Text),
    ],
    whole: false,
};
static POD: Shape = Shape {
    name: "PodSpec",
    fields: &[
        ("containers", Many(&CONTAINER)),
        ("restartPolicy", Text),
        ("terminationGracePeriodSeconds", INT64),
        ("activeDeadlineSeconds", INT64),
        ("nodeSelector", TextMap),
        ("nodeName", Text),
        ("serviceAccountName", Text),
        ("automountServiceAccountToken", Bool),
        ("schedulerName", Text),
    ],
    whole: false,
};
static TEMPLATE: Shape =
    Shape { name: "PodTemplateSpec", fields: &[("metadata", One(&META)), ("spec", One(&POD))], whole: true };
static CLAIM_TEMPLATE: Shape =
    Shape { name: "PersistentVolumeClaim", fields: &[("metadata", One(&META)), ("spec", One(&CLAIM))], whole: false };
static LEASE: Shape = Shape {
    name: "LeaseSpec",
    fields: &[("holderIdentity", Text), ("leaseDurationSeconds", INT32), ("leaseTransitions", INT32)],
    whole: false,
};
static NODE: Shape = Shape {
    name: "NodeSpec",
    fields: &[("podCIDR", Text), ("providerID", Text), ("unschedulable", Bool)],
    whole: false,
};
static SCALE: Shape = Shape { name: "ScaleSpec", fields: &[("replicas", INT32)], whole: true };

/// The `spec` of what runs pods.
macro_rules! workload {
    ($name:literal $(, $field:expr)*) => {
        Shape {
            name: $name,
            fields: &[
                ("replicas", INT32),
                ("minReadySeconds", INT32),
                ("revisionHistoryLimit", INT32),
                ("progressDeadlineSeconds", INT32),
                ("paused", Bool),
                ("parallelism", INT32),
                ("completions", INT32),
                ("backoffLimit", INT32),
                ("activeDeadlineSeconds", INT64),
                ("serviceName", Text),
                ("podManagementPolicy", Text),
                ("selector", One(&SELECTOR)),
                ("template", One(&TEMPLATE)),
                $($field,)*
            ],
            whole: false,
        }
    };
}

static DEPLOYMENT: Shape = workload!("DeploymentSpec");
static REPLICA_SET: Shape = workload!("ReplicaSetSpec");
static DAEMON_SET: Shape = workload!("DaemonSetSpec");
static JOB: Shape = workload!("JobSpec");
static STATEFUL_SET: Shape = workload!("StatefulSetSpec", ("volumeClaimTemplates", Many(&CLAIM_TEMPLATE)));

/// An object with `spec` and `status` of these shapes.
macro_rules! object {
    ($($spec:ident)?) => {{
        static SHAPE: Shape = Shape {
            name: "",
            fields: &[$(("spec", One(&$spec)),)? ("status", Any)],
            whole: true,
        };
        &SHAPE
    }};
}

/// What a kind has besides kind, version and metadata.
fn shape(kind: &str) -> Option<&'static Shape> {
    static CONFIG_MAP: Shape =
        Shape { name: "", fields: &[("data", TextMap), ("binaryData", BytesMap), ("immutable", Bool)], whole: true };
    static SECRET: Shape = Shape {
        name: "",
        fields: &[("data", BytesMap), ("stringData", TextMap), ("type", Text), ("immutable", Bool)],
        whole: true,
    };
    static CLASS: Shape = Shape {
        name: "",
        fields: &[
            ("provisioner", Text),
            ("parameters", TextMap),
            ("reclaimPolicy", Text),
            ("mountOptions", Texts),
            ("allowVolumeExpansion", Bool),
            ("volumeBindingMode", Text),
            ("allowedTopologies", Any),
        ],
        whole: true,
    };
    Some(match kind {
        "ConfigMap" => &CONFIG_MAP,
        "Secret" => &SECRET,
        "StorageClass" => &CLASS,
        "PersistentVolumeClaim" => object!(CLAIM),
        "PersistentVolume" => object!(VOLUME),
        "Pod" => object!(POD),
        "Node" => object!(NODE),
        "Lease" => object!(LEASE),
        "Deployment" => object!(DEPLOYMENT),
        "ReplicaSet" => object!(REPLICA_SET),
        "DaemonSet" => object!(DAEMON_SET),
        "StatefulSet" => object!(STATEFUL_SET),
        "Job" => object!(JOB),
        "Scale" => object!(SCALE),
        _ => return None,
    })
}

/// Something that cannot be read.
pub struct Unreadable {
    /// What is wrong with it, in the words of the real server's reader.
    pub why: String,
    /// The same in two words: `int64 to string`.
    pub types: String,
    /// Whether the reader goes on, and so names every later field of the same object too.
    goes_on: bool,
}

/// Drops the fields that there are not, and says what cannot be read.
///
/// # Errors
/// The first value that is of another type than its field.
pub fn read(kind: &Kind, object: &mut Value) -> Result<(), Unreadable> {
    let Some(map) = object.as_object_mut() else { return Ok(()) };
    let known = shape(kind.kind);
    let fields = known.map_or(&[][..], |shape| shape.fields);
    if known.is_some_and(|shape| shape.whole) {
        map.retain(|key, _| {
            matches!(&key[..], "kind" | "apiVersion" | "metadata") || fields.iter().any(|(name, _)| name == key)
        });
    }
    let of = |key: &str| match key {
        "metadata" => Some(&METADATA),
        _ => field(fields, key),
    };
    walk(map, of).map_err(|mut wrong| {
        wrong.why = format!("v1.{}.{}", kind.kind, wrong.why);
        wrong
    })
}

fn field(fields: &'static [(&'static str, Type)], key: &str) -> Option<&'static Type> {
    fields.iter().find(|(name, _)| *name == key).map(|(_, of)| of)
}

fn walk(map: &mut Map<String, Value>, of: impl Fn(&str) -> Option<&'static Type>) -> Result<(), Unreadable> {
    let mut wrong: Option<Unreadable> = None;
    for (key, value) in map.iter_mut() {
        if let Some(found) = &mut wrong {
            if !found.goes_on {
                break;
            }
            found.why = match (&key[..], of(key)) {
                ("kind" | "apiVersion", _) => format!("TypeMeta: {}: {}", go_name(key), found.why),
                (_, Some(One(shape))) => format!("{}: v1.{}.{}", go_name(key), shape.name, found.why),
                _ => format!("{}: {}", go_name(key), found.why),
            };
            continue;
        }
        let Some(of) = of(key) else { continue };
        if value.is_null() {
            continue;
        }
        if let Err(mut found) = read_as(of, value) {
            found.why = format!("{}: {}", go_name(key), found.why);
            wrong = Some(found);
        }
    }
    wrong.map_or(Ok(()), Err)
}

fn go_name(key: &str) -> String {
    match key {
        "metadata" => "ObjectMeta".into(),
        "uid" => "UID".into(),
        "apiVersion" => "APIVersion".into(),
        key => key[..1].to_uppercase() + &key[1..],
    }
}

fn read_as(of: &Type, value: &mut Value) -> Result<(), Unreadable> {
    let shown = value.to_string();
    let first = shown.chars().next().unwrap_or_default();
    // A reader that has eaten the whole wrong value finds its way; after a number only if that had one digit.
    let fail = |why: String, to: &str, goes_on: bool| {
        Err(Unreadable { why, types: format!("cannot convert {} to {to}", go_type(value)), goes_on })
    };
    let text = || fail(format!("ReadString: expects \" or n, but found {first}"), "string", shown.len() == 1);
    match (of, &*value) {
        (Any, _)
        | (Text, Value::String(_))
        | (Bool, Value::Bool(_))
        | (Texts | Many(_), Value::Array(_))
        | (TextMap | BytesMap | Amounts | One(_), Value::Object(_)) => {}
        (Number(_), Value::Number(number)) if number.is_i64() => {}
        (Time, Value::String(time)) if time.parse::<jiff::Timestamp>().is_ok() => {}
        (Text, _) => return text(),
        // The character is one of the buffer's that is no character.
        (Number(width), _) => return fail(format!("read{width}: unexpected character: \u{fffd}"), "int64", false),
        (Bool, _) => return fail(format!("ReadBool: expect t or f, but found {first}"), "bool", false),
        (Time, Value::String(time)) => {
            let why = format!(
                "unmarshalerDecoder: parsing time \"{time}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{time}\" \
                 as \"2006\""
            );
            return fail(why, "v1.Time", true);
        }
        (Time, _) => {
            let why = "unmarshalerDecoder: json: cannot unmarshal number into Go value of type string".into();
            return fail(why, "v1.Time", true);
        }
        (Texts | Many(_), _) => {
            return fail(format!("decode slice: expect [ or n, but found {first}"), "slice", false);
        }
        (TextMap | BytesMap | Amounts, _) => {
            return fail(format!("ReadMapCB: expect {{ or n, but found {first}"), "map", false);
        }
        (One(_), _) => return fail(format!("readObjectStart: expect {{ or n, but found {first}"), "struct", false),
    }
    match (of, value) {
        (Texts, Value::Array(all)) => all.iter_mut().try_for_each(|one| read_unless_null(&Text, one)),
        (TextMap, Value::Object(all)) => all.values_mut().try_for_each(|one| read_unless_null(&Text, one)),
        (BytesMap, Value::Object(all)) => all.values_mut().try_for_each(|one| {
            read_unless_null(&Text, one)?;
            match one.as_str() {
                Some(text) if !is_base64(text) => Err(Unreadable {
                    why: "decode base64: illegal base64 data at input byte 0".into(),
                    types: "illegal base64 data at input byte 0".into(),
                    goes_on: true,
                }),
                _ => Ok(()),
            }
        }),
        (Amounts, Value::Object(all)) => all.values_mut().try_for_each(|one| match one {
            Value::Null => Ok(()),
            one if Quantity::of(one).is_some() => Ok(()),
            _ => Err(Unreadable {
                why: format!("unmarshalerDecoder: {NOT_A_QUANTITY}"),
                types: NOT_A_QUANTITY.into(),
                goes_on: true,
            }),
        }),
        (Many(shape), Value::Array(all)) => all.iter_mut().try_for_each(|one| read_unless_null(&One(shape), one)),
        (One(shape), Value::Object(map)) => {
            if shape.whole {
                map.retain(|key, _| field(shape.fields, key).is_some());
            }
            walk(map, |key| field(shape.fields, key)).map_err(|mut wrong| {
                wrong.why = format!("v1.{}.{}", shape.name, wrong.why);
                wrong
            })
        }
        _ => Ok(()),
    }
}

fn read_unless_null(of: &Type, value: &mut Value) -> Result<(), Unreadable> {
    if value.is_null() { Ok(()) } else { read_as(of, value) }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// The fields of the metadata in the order of every answer.
pub fn in_order(metadata: &mut Value) {
    let Some(map) = metadata.as_object_mut() else { return };
    let mut ordered = Map::new();
    for (name, _) in META.fields {
        if let Some(value) = map.shift_remove(*name) {
            ordered.insert((*name).to_owned(), value);
        }
    }
    ordered.append(map);
    *map = ordered;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::kind::kind;
    use serde_json::json;

    #[test]
    fn what_cannot_be_read_is_told_as_the_reader_tells_it() {
        let time =
            "unmarshalerDecoder: parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"";
        for (name, object, wanted) in [
            ("ConfigMap", json!({"data": {"k": 1}}), "v1.ConfigMap.Data: ReadString: expects \" or n, but found 1"),
            (
                "ConfigMap",
                json!({"data": {"k": 1}, "kind": "", "metadata": {}}),
                "v1.ConfigMap.ObjectMeta: v1.ObjectMeta.TypeMeta: Kind: Data: ReadString: expects \" or n, but found 1",
            ),
            (
                "ConfigMap",
                json!({"metadata": {"creationTimestamp": "x"}, "data": {}}),
                &format!("v1.ConfigMap.Data: ObjectMeta: v1.ObjectMeta.CreationTimestamp: {time}"),
            ),
            (
                "StatefulSet",
                json!({"spec": {"replicas": "two", "serviceName": ""}}),
                "v1.StatefulSet.Spec: v1.StatefulSetSpec.Replicas: readUint32: unexpected character: \u{fffd}",
            ),
            (
                "Secret",
                json!({"data": {"k": "#"}}),
                "v1.Secret.Data: decode base64: illegal base64 data at input byte 0",
            ),
            (
                "Pod",
                json!({"metadata": {"labels": []}}),
                "v1.Pod.ObjectMeta: v1.ObjectMeta.Labels: ReadMapCB: expect { or n, but found [",
            ),
        ] {
            let mut object = object;
            let said = read(kind(name), &mut object).err().map(|wrong| wrong.why);
            assert_eq!(said.as_deref(), Some(wanted), "{object}");
        }
    }

    #[test]
    fn unknown_fields_are_dropped_and_the_rest_is_left_alone() {
        let mut object =
            json!({"kind": "ConfigMap", "nothing": 1, "metadata": {"name": "a", "x": 2}, "data": {"k": null}});
        assert!(read(kind("ConfigMap"), &mut object).is_ok());
        assert_eq!(object, json!({"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": null}}));
        let mut event = json!({"nothing": 1});
        assert!(read(kind("Event"), &mut event).is_ok());
        assert_eq!(event, json!({"nothing": 1}));
    }
}
