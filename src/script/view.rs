//! Values between Rhai and Rust. Objects of the cluster are immutable snapshots behind a typed view: reading a field
//! never asks the cluster, and passing one around copies a pointer.

use crate::cluster::{pv::Pv, pvc::Pvc, text, workload};
use crate::words::{Json, Problem, names};
use rhai::{Array, Dynamic, Engine, EvalAltResult, INT, Map};
use std::sync::Arc;

/// A part of an object as it was when it was read.
#[derive(Clone)]
pub struct View {
    root: Arc<Json>,
    pointer: String,
}

/// Fields that every object has for scripts, beside its own.
const GETTERS: [&str; 16] = [
    "name",
    "namespace",
    "uid",
    "labels",
    "annotations",
    "size_bytes",
    "request_bytes",
    "class",
    "phase",
    "volume",
    "claim",
    "policy",
    "handle",
    "replicas",
    "ready",
    "key",
];

impl View {
    pub fn new(object: Json) -> Self {
        View { root: Arc::new(object), pointer: String::new() }
    }

    pub fn json(&self) -> &Json {
        self.root.pointer(&self.pointer).unwrap_or(&Json::Null)
    }

    fn is_object(&self) -> bool {
        self.pointer.is_empty() && is_object(&self.root)
    }

    fn get(&self, field: &str) -> Result<Dynamic, Box<EvalAltResult>> {
        if self.is_object() {
            if let Some(value) = self.getter(field) {
                return Ok(value);
            }
            // The top of an object is known: a name that is not there is a slip of the pen, not an optional field.
            if self.root.get(field).is_none() && !matches!(field, "spec" | "status" | "data" | "metadata") {
                let known =
                    GETTERS.into_iter().chain(self.root.as_object().into_iter().flatten().map(|(key, _)| key.as_str()));
                let mut problem = Problem::usage(format!("{} has no field `{field}`", workload::reference(&self.root)));
                if let Some(word) = names::did_you_mean(field, known) {
                    problem = problem.hint(format!("did you mean `{word}`?"));
                }
                return Err(super::errors::throw(&problem, rhai::Position::NONE));
            }
        }
        let escaped = field.replace('~', "~0").replace('/', "~1");
        Ok(self.child(&escaped))
    }

    fn child(&self, part: &str) -> Dynamic {
        let pointer = format!("{}/{part}", self.pointer);
        match self.root.pointer(&pointer) {
            Some(Json::Object(_)) => Dynamic::from(View { root: self.root.clone(), pointer }),
            Some(Json::Array(items)) => {
                let child = View { root: self.root.clone(), pointer };
                (0..items.len()).map(|index| child.child(&index.to_string())).collect::<Array>().into()
            }
            Some(scalar) => to_dynamic(scalar),
            None => Dynamic::UNIT,
        }
    }

    /// What is computed from the object, by kind.
    fn getter(&self, field: &str) -> Option<Dynamic> {
        let object: &Json = &self.root;
        let kind = text(object, "/kind");
        let string = |value: &str| Some(Dynamic::from(value.to_owned()));
        let number = |value: u64| Some(Dynamic::from_int(INT::try_from(value).unwrap_or(INT::MAX)));
        Some(match (field, kind) {
            ("name", _) => string(text(object, "/metadata/name"))?,
            ("namespace", _) => string(text(object, "/metadata/namespace"))?,
            ("uid", _) => string(text(object, "/metadata/uid"))?,
            ("key", _) => string(&workload::reference(object).to_string())?,
            ("labels" | "annotations", _) => {
                let map = self.child(&format!("metadata/{field}"));
                if map.is_unit() { Map::new().into() } else { map }
            }
            ("phase", _) => string(text(object, "/status/phase"))?,
            ("size_bytes", "PersistentVolume") => number(Pv(object).capacity_bytes())?,
            ("size_bytes", "PersistentVolumeClaim") => {
                number(Pvc(object).capacity_bytes().max(Pvc(object).request_bytes()))?
            }
            ("request_bytes", "PersistentVolumeClaim") => number(Pvc(object).request_bytes())?,
            ("class", "PersistentVolume") => string(Pv(object).class())?,
            ("class", "PersistentVolumeClaim") => string(Pvc(object).class())?,
            ("volume", "PersistentVolumeClaim") => string(Pvc(object).volume())?,
            ("claim", "PersistentVolume") => Pv(object).claim().map_or(Dynamic::UNIT, |claim| claim.to_string().into()),
            ("policy", "PersistentVolume") => string(Pv(object).policy())?,
            ("policy", "StorageClass") => string(match text(object, "/reclaimPolicy") {
                "" => "Delete",
                policy => policy,
            })?,
            ("handle", "PersistentVolume") => string(&Pv(object).handle())?,
            ("replicas", "Deployment" | "StatefulSet" | "ReplicaSet") => Dynamic::from_int(workload::replicas(object)),
            ("ready", "Deployment" | "StatefulSet" | "ReplicaSet") => {
                Dynamic::from_bool(workload::is_ready(object).is_ok())
            }
            _ => return None,
        })
    }
}

/// True if JSON is a whole object of the cluster.
pub fn is_object(json: &Json) -> bool {
    json["kind"].is_string() && json["apiVersion"].is_string() && json["metadata"].is_object()
}

/// JSON as scripts see it: whole objects become views, the rest plain values.
pub fn to_dynamic(json: &Json) -> Dynamic {
    match json {
        Json::Null => Dynamic::UNIT,
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => number
            .as_i64()
            .map(Dynamic::from_int)
            .or_else(|| number.as_f64().map(Dynamic::from_float))
            .unwrap_or(Dynamic::UNIT),
        Json::String(text) => text.clone().into(),
        Json::Array(items) => items.iter().map(to_dynamic).collect::<Array>().into(),
        Json::Object(_) if is_object(json) => Dynamic::from(View::new(json.clone())),
        Json::Object(map) => {
            map.iter().map(|(key, value)| (key.as_str().into(), to_dynamic(value))).collect::<Map>().into()
        }
    }
}

/// What a script hands over, as JSON.
///
/// # Errors
/// If it holds something that cannot be journaled, such as a function.
pub fn to_json(value: &Dynamic) -> Result<Json, Problem> {
    if value.is_shared() {
        return to_json(&value.clone().flatten());
    }
    if let Some(view) = value.read_lock::<View>() {
        return Ok(view.json().clone());
    }
    if let Some(items) = value.read_lock::<Array>() {
        return items.iter().map(to_json).collect::<Result<Vec<_>, _>>().map(Json::Array);
    }
    if let Some(map) = value.read_lock::<Map>() {
        return map
            .iter()
            .map(|(key, value)| Ok((key.to_string(), to_json(value)?)))
            .collect::<Result<serde_json::Map<_, _>, Problem>>()
            .map(Json::Object);
    }
    if value.is_unit() {
        return Ok(Json::Null);
    }
    if let Ok(number) = value.as_int() {
        return Ok(number.into());
    }
    if let Ok(flag) = value.as_bool() {
        return Ok(flag.into());
    }
    if let Ok(number) = value.as_float() {
        return Ok(serde_json::Number::from_f64(number).map_or(Json::Null, Json::Number));
    }
    if let Some(text) = value.read_lock::<rhai::ImmutableString>() {
        return Ok(Json::String(text.to_string()));
    }
    if let Ok(letter) = value.as_char() {
        return Ok(Json::String(letter.to_string()));
    }
    Err(Problem::usage(format!("a {} cannot be handed over here", value.type_name())))
}

/// What of the arguments makes a step the same step: objects by identity, the rest by value.
pub fn identity(json: &Json) -> Json {
    match json {
        Json::Object(_) if is_object(json) => {
            Json::String(format!("{}#{}", workload::reference(json), text(json, "/metadata/uid")))
        }
        Json::Object(map) => Json::Object(map.iter().map(|(key, value)| (key.clone(), identity(value))).collect()),
        Json::Array(items) => Json::Array(items.iter().map(identity).collect()),
        other => other.clone(),
    }
}

/// Makes views usable in scripts.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<View>("Object");
    engine.register_indexer_get(|view: &mut View, field: &str| view.get(field));
    engine.register_fn("to_string", |view: &mut View| display(view));
    engine.register_fn("to_debug", |view: &mut View| display(view));
    engine.register_fn("to_map", |view: &mut View| {
        view.json()
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str().into(), to_dynamic(value)))
            .collect::<Map>()
    });
    engine.register_fn("to_yaml", |view: &mut View| serde_yaml_ng::to_string(view.json()).unwrap_or_default());
    engine.register_fn("keys", |view: &mut View| {
        view.json().as_object().into_iter().flatten().map(|(key, _)| Dynamic::from(key.clone())).collect::<Array>()
    });
    engine.register_fn("contains", |view: &mut View, field: &str| view.json().get(field).is_some());
    engine.register_fn("==", |a: View, b: View| identity(a.json()) == identity(b.json()));
    engine.register_fn("!=", |a: View, b: View| identity(a.json()) != identity(b.json()));
}

fn display(view: &View) -> String {
    if view.is_object() { workload::reference(view.json()).to_string() } else { view.json().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn eval(script: &str) -> Dynamic {
        let mut engine = Engine::new();
        register(&mut engine);
        let mut scope = rhai::Scope::new();
        scope.push("pvc", View::new(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": "shop", "labels": {"a/b": "x"}, "uid": "u"},
            "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "pv-1", "resources": {"requests": {"storage": "1Gi"}}}})));
        match engine.eval_with_scope::<Dynamic>(&mut scope, script) {
            Ok(value) => value,
            Err(e) => Dynamic::from(format!("error: {}", super::super::errors::problem(&e, ""))),
        }
    }

    #[test]
    fn fields_read_like_kubernetes() {
        for (script, want) in [
            ("pvc.name", "data"),
            ("pvc.volume", "pv-1"),
            ("pvc.spec.resources.requests.storage", "1Gi"),
            ("pvc.labels[\"a/b\"]", "x"),
            ("pvc.spec.accessModes[0]", "ReadWriteOnce"),
            ("pvc.size_bytes.to_string()", "1073741824"),
            ("pvc.spec?.nope?.deep ?? \"none\"", "none"),
            ("(pvc.status?.phase ?? \"none\")", "none"),
            ("`${pvc}`", "PersistentVolumeClaim:shop/data"),
            ("if pvc == pvc { \"same\" } else { \"other\" }", "same"),
            ("let n = []; for m in pvc.spec.accessModes { n.push(m) } n[0]", "ReadWriteOnce"),
        ] {
            assert_eq!(eval(script).to_string(), want, "{script}");
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_an_error_with_a_guess() {
        assert_eq!(eval("pvc.nam").to_string(), "error: PersistentVolumeClaim:shop/data has no field `nam`");
    }

    #[test]
    fn values_survive_the_way_through_json() {
        let json = json!({"a": [1, 2.5, true, null, "x"], "o": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}});
        assert_eq!(to_json(&to_dynamic(&json)).unwrap(), json);
    }
}
