//! What scripts can do to a cluster: one table, one entry per primitive, declared once.
//!
//! An entry is name, typed parameters, doc, an example that runs on `shop`, effect class, rights. `doc`, the REPL's
//! help, docs/primitives.md and the checks are made from it. To add one: an entry in the file of its noun, nothing else.

mod back;
mod control;
mod copy;
mod object;
mod preflight;
mod pv;
mod pvc;
mod relabel;
mod sc;
mod target;
mod workload;

pub use control::{CONTROLS, Control, register as register_controls, render as render_table};
pub use copy::IMAGE;

use super::enter::{self, Step};
use crate::words::{Json, Problem, PvcRef, names, size};
use rhai::{Dynamic, Engine, FuncRegistration, NativeCallContext};
use std::pin::Pin;

/// What a primitive does to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Read,
    Write,
    /// It gives data up.
    Free,
}

impl Effect {
    pub fn word(self) -> &'static str {
        match self {
            Effect::Read => "reads",
            Effect::Write => "writes",
            Effect::Free => "gives data up",
        }
    }
}

/// The type of a parameter or an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Text,
    Int,
    Bool,
    Size,
    /// A whole object of this kind.
    Object(&'static str),
    /// Any whole object.
    AnyObject,
    List,
    Map,
    /// A map that `stop` returned, or `units`, and so on: named for people.
    Value(&'static str),
}

impl Type {
    pub fn word(self) -> String {
        match self {
            Type::Text => "string".into(),
            Type::Int => "int".into(),
            Type::Bool => "bool".into(),
            Type::Size => "size".into(),
            Type::Object(kind) => kind.into(),
            Type::AnyObject => "object".into(),
            Type::List => "array".into(),
            Type::Map => "map".into(),
            Type::Value(name) => name.into(),
        }
    }

    fn fits(self, json: &Json) -> bool {
        match self {
            Type::Text => json.is_string(),
            Type::Int => json.is_i64(),
            Type::Bool => json.is_boolean(),
            // Nothing is of no size.
            Type::Size => match json.as_str() {
                Some(text) => size::parse_bytes(text).is_ok_and(|bytes| bytes > 0),
                None => json.as_u64().is_some_and(|bytes| bytes > 0),
            },
            Type::Object(kind) => super::view::is_object(json) && json["kind"] == kind,
            Type::AnyObject => super::view::is_object(json),
            Type::List => json.is_array(),
            Type::Map | Type::Value(_) => json.is_object(),
        }
    }
}

pub struct Param {
    pub name: &'static str,
    pub ty: Type,
    /// For options: what it means.
    pub doc: &'static str,
}

pub const fn param(name: &'static str, ty: Type) -> Param {
    Param { name, ty, doc: "" }
}

pub const fn option(name: &'static str, ty: Type, doc: &'static str) -> Param {
    Param { name, ty, doc }
}

type Future = Pin<Box<dyn std::future::Future<Output = Result<Json, Problem>> + Send>>;

/// Verbs (separated by spaces), group, resource.
pub type Right = (&'static str, &'static str, &'static str);

/// One entry of the table.
pub struct Primitive {
    pub name: &'static str,
    pub params: &'static [Param],
    /// Keys of the options map, which may be left out; empty if there is none.
    pub options: &'static [Param],
    pub returns: &'static str,
    pub doc: &'static str,
    /// Runs where Deployment `web` uses the claims `data` and `logs` of class `slow`, and StatefulSet `db` its own, in the
    /// namespace `shop`. Its last value is true, and it leaves nothing of ours behind: a test runs it.
    pub example: &'static str,
    pub effect: Effect,
    /// All that it asks of the cluster, the reads of its guards included. `*` is the kind that its arguments name.
    pub rights: &'static [Right],
    pub run: fn(Step, Args) -> Future,
}

/// Arguments that were checked: as many as parameters, and the options map last if the primitive has options.
pub struct Args(pub Vec<Json>);

/// The whole table, by noun.
pub fn all() -> impl Iterator<Item = &'static Primitive> {
    [
        pv::TABLE,
        pvc::TABLE,
        sc::TABLE,
        workload::TABLE,
        copy::TABLE,
        preflight::TABLE,
        object::TABLE,
        back::TABLE,
        relabel::TABLE,
    ]
    .into_iter()
    .flatten()
}

pub fn find(name: &str) -> Option<&'static Primitive> {
    all().find(|primitive| primitive.name == name)
}

/// Every function that the host gives to scripts.
pub fn names() -> impl Iterator<Item = &'static str> {
    all().map(|primitive| primitive.name).chain(CONTROLS.iter().map(|control| control.name))
}

impl Primitive {
    /// `create_pvc(like: PersistentVolumeClaim, opts?) -> PersistentVolumeClaim`
    pub fn signature(&self) -> String {
        let mut params: Vec<String> = self.params.iter().map(|p| format!("{}: {}", p.name, p.ty.word())).collect();
        if !self.options.is_empty() {
            params.push("opts?".into());
        }
        format!("{}({}) -> {}", self.name, params.join(", "), self.returns)
    }

    /// Checks number, types and option names.
    ///
    /// # Errors
    /// `Usage`, with the signature.
    pub fn check(&self, mut args: Vec<Json>) -> Result<Args, Problem> {
        let wrong = |message: String| Problem::usage(message).hint(format!("it is {}", self.signature()));
        if args.len() == self.params.len() && !self.options.is_empty() {
            args.push(Json::Object(serde_json::Map::new()));
        }
        for (param, arg) in self.params.iter().zip(&args) {
            if !param.ty.fits(arg) {
                let got = describe(arg);
                return Err(wrong(format!("{} wants {} as `{}`, not {got}", self.name, param.ty.word(), param.name)));
            }
        }
        if !self.options.is_empty() {
            let Some(given) = args.last().and_then(Json::as_object) else {
                return Err(wrong(format!("{} wants its options as a map", self.name)));
            };
            for (key, value) in given {
                let Some(known) = self.options.iter().find(|option| option.name == key) else {
                    let mut problem = wrong(format!("{} has no option `{key}`", self.name));
                    if let Some(word) = names::did_you_mean(key, self.options.iter().map(|option| option.name)) {
                        problem = problem.hint(format!("did you mean `{word}`?"));
                    }
                    return Err(problem);
                };
                // An option that is () is an option that is not given: scripts hand their own options on.
                if !value.is_null() && !known.ty.fits(value) {
                    return Err(wrong(format!(
                        "the option `{key}` of {} is a {}, not {}",
                        self.name,
                        known.ty.word(),
                        describe(value)
                    )));
                }
            }
        }
        Ok(Args(args))
    }
}

fn describe(json: &Json) -> String {
    match json {
        Json::Null => "()".into(),
        Json::Bool(_) => "a bool".into(),
        Json::Number(_) => "a number".into(),
        Json::String(text) => format!("the string \"{}\"", names::plain(text)),
        Json::Array(_) => "an array".into(),
        Json::Object(_) if super::view::is_object(json) => format!("a {}", json["kind"].as_str().unwrap_or("object")),
        Json::Object(_) => "a map".into(),
    }
}

impl Args {
    pub fn json(&self, index: usize) -> &Json {
        &self.0[index]
    }

    pub fn text(&self, index: usize) -> &str {
        self.0[index].as_str().unwrap_or_default()
    }

    pub fn int(&self, index: usize) -> i64 {
        self.0[index].as_i64().unwrap_or_default()
    }

    /// Namespace and name of a claim given as two strings.
    pub fn claim(&self, index: usize) -> Result<PvcRef, Problem> {
        Ok(PvcRef::new(names::label_name(self.text(index))?, names::object_name(self.text(index + 1))?))
    }

    /// An option that was given, and is not ().
    pub fn option(&self, key: &str) -> Option<&Json> {
        self.0.last()?.get(key).filter(|value| !value.is_null())
    }

    pub fn option_text(&self, key: &str) -> Option<&str> {
        self.option(key)?.as_str()
    }

    /// A size as Kubernetes writes it; a number is one of bytes.
    pub fn option_size(&self, key: &str) -> Option<String> {
        let size = self.option(key)?;
        Some(size.as_str().map_or_else(|| size.to_string(), str::to_owned))
    }

    pub fn option_int(&self, key: &str) -> Option<i64> {
        self.option(key)?.as_i64()
    }

    pub fn option_bool(&self, key: &str) -> bool {
        self.option(key).and_then(Json::as_bool).unwrap_or(false)
    }

    pub fn option_list(&self, key: &str) -> Option<Vec<String>> {
        let items = self.option(key)?.as_array()?;
        Some(items.iter().filter_map(Json::as_str).map(str::to_owned).collect())
    }
}

/// Makes the table callable.
pub fn register(engine: &mut Engine) {
    for primitive in all() {
        let least = primitive.params.len();
        let most = least + usize::from(!primitive.options.is_empty());
        for arity in least..=most {
            register_one(engine, primitive, arity);
        }
    }
}

fn register_one(engine: &mut Engine, primitive: &'static Primitive, arity: usize) {
    let mut infos: Vec<String> = primitive.params.iter().map(|p| format!("{}: {}", p.name, p.ty.word())).collect();
    if arity > primitive.params.len() {
        infos.push("opts: map".into());
    }
    infos.push(primitive.returns.into());
    let comments: Vec<String> = primitive.doc.lines().map(|line| format!("/// {line}")).collect();
    let entry =
        FuncRegistration::new(primitive.name).in_global_namespace().with_params_info(infos).with_comments(comments);
    type C<'a> = NativeCallContext<'a>;
    type D = Dynamic;
    match arity {
        0 => entry.register_into_engine(engine, move |ctx: C| enter::call(primitive, &ctx, &[])),
        1 => entry.register_into_engine(engine, move |ctx: C, a: D| enter::call(primitive, &ctx, &[a])),
        2 => entry.register_into_engine(engine, move |ctx: C, a: D, b: D| enter::call(primitive, &ctx, &[a, b])),
        3 => {
            entry.register_into_engine(engine, move |ctx: C, a: D, b: D, c: D| enter::call(primitive, &ctx, &[a, b, c]))
        }
        _ => entry.register_into_engine(engine, move |ctx: C, a: D, b: D, c: D, d: D| {
            enter::call(primitive, &ctx, &[a, b, c, d])
        }),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_size_is_text_or_a_number_of_bytes_and_never_nothing() {
        for (given, fits, size) in [
            (json!("50Mi"), true, Some("50Mi")),
            (json!(1000), true, Some("1000")),
            (json!("0"), false, Some("0")),
            (json!(0), false, Some("0")),
            (json!("big"), false, Some("big")),
            (Json::Null, false, None),
        ] {
            assert_eq!(Type::Size.fits(&given), fits, "{given}");
            assert_eq!(Args(vec![json!({"size": given})]).option_size("size").as_deref(), size);
        }
    }

    #[test]
    fn every_primitive_is_declared_whole() {
        for primitive in all() {
            assert!(primitive.params.len() <= 4, "{}", primitive.name);
            assert!(primitive.doc.ends_with('.') && primitive.doc.len() > 20, "{}", primitive.name);
            assert!(!primitive.example.is_empty() && !primitive.rights.is_empty(), "{}", primitive.name);
            for (verbs, ..) in primitive.rights {
                let verbs: Vec<&str> = verbs.split(' ').collect();
                let known = ["create", "delete", "get", "list", "patch", "watch"];
                assert!(
                    verbs.is_sorted() && verbs.iter().all(|verb| known.contains(verb)),
                    "{}: {verbs:?}",
                    primitive.name
                );
            }
            assert!(primitive.options.iter().all(|option| !option.doc.is_empty()), "{}", primitive.name);
        }
        let mut words: Vec<_> = names().collect();
        words.sort_unstable();
        let count = words.len();
        words.dedup();
        assert_eq!(words.len(), count, "a name is declared twice");
    }

    #[test]
    fn wrong_arguments_are_told_apart() {
        let primitive = find("create_pvc").unwrap();
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}});
        assert!(primitive.check(vec![claim.clone(), json!({"class": "fast"})]).is_ok());
        for (args, message) in [
            (
                vec![json!("data"), json!({})],
                "create_pvc wants PersistentVolumeClaim as `like`, not the string \"data\"",
            ),
            (vec![claim.clone(), json!({"clas": "fast"})], "create_pvc has no option `clas`"),
            (vec![claim.clone(), json!({"class": 1})], "the option `class` of create_pvc is a string, not a number"),
            (vec![claim, json!(1)], "create_pvc wants its options as a map"),
        ] {
            assert_eq!(primitive.check(args).err().unwrap().message, message);
        }
    }
}
