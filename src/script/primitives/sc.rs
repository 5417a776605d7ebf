//! StorageClasses.

use super::{Args, Effect, Primitive, Type, param};
use crate::cluster::{known, text, uid};
use crate::journal::{Class, Precondition, Verb, Write};
use crate::script::enter::Step;
use crate::words::{Json, Kind, Problem, names};
use serde_json::json;

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";

pub const TABLE: &[Primitive] = &[
    Primitive {
        name: "list_scs",
        params: &[],
        options: &[],
        returns: "array",
        doc: "Returns the StorageClasses, sorted by name.",
        example: "list_scs().map(|c| c.name).contains(\"slow\")",
        effect: Effect::Read,
        rights: &[("list", "storage.k8s.io", "storageclasses")],
        run: |step, _| Box::pin(list_scs(step)),
    },
    Primitive {
        name: "get_sc",
        params: &[param("name", Type::Text)],
        options: &[],
        returns: "StorageClass",
        doc: "Returns the StorageClass, which must exist; otherwise the error names the ones that do.",
        example: "get_sc(\"slow\").policy == \"Delete\"",
        effect: Effect::Read,
        rights: &[("get list", "storage.k8s.io", "storageclasses")],
        run: |step, args| Box::pin(get_sc(step, args)),
    },
    Primitive {
        name: "set_default_sc",
        params: &[param("name", Type::Text)],
        options: &[],
        returns: "StorageClass",
        doc: "Makes a StorageClass the default, and no other: the new one first, so that there is never none.",
        example: r#"let fast = set_default_sc("fast");
fast.annotations["storageclass.kubernetes.io/is-default-class"] == "true""#,
        effect: Effect::Write,
        rights: &[("get list patch", "storage.k8s.io", "storageclasses")],
        run: |step, args| Box::pin(set_default_sc(step, args)),
    },
];

async fn classes(step: &Step) -> Result<Vec<Json>, Problem> {
    step.cluster().list_all(&known("StorageClass"), "").await.map_err(|e| e.problem("list the StorageClasses", None))
}

async fn list_scs(step: Step) -> Result<Json, Problem> {
    Ok(Json::Array(classes(&step).await?))
}

async fn get_sc(step: Step, args: Args) -> Result<Json, Problem> {
    let name = names::object_name(args.text(0))?;
    if let Some(class) = step.find("StorageClass", "", name).await? {
        return Ok(class);
    }
    let all = classes(&step).await?;
    let known: Vec<&str> = all.iter().map(|class| text(class, "/metadata/name")).collect();
    let mut problem = Problem::new(Kind::NotFound, format!("there is no StorageClass `{name}`"))
        .object(format!("StorageClass:{name}"));
    if let Some(word) = names::did_you_mean(name, known.iter().copied()) {
        problem = problem.hint(format!("did you mean `{word}`?"));
    }
    Err(problem.hint(format!("the cluster has: {}", known.join(", "))))
}

async fn set_default_sc(step: Step, args: Args) -> Result<Json, Problem> {
    let name = names::object_name(args.text(0))?;
    let all = classes(&step).await?;
    let is = |class: &Json| [DEFAULT, DEFAULT_BETA].iter().any(|key| class["metadata"]["annotations"][*key] == "true");
    let Some(chosen) = all.iter().find(|class| text(class, "/metadata/name") == name) else {
        return Err(Problem::new(Kind::NotFound, format!("there is no StorageClass `{name}`")));
    };
    let set = |class: &Json, on: bool| {
        let was = class["metadata"]["annotations"][DEFAULT].clone();
        let write = |body: Json, inverse: Vec<Write>| Write {
            verb: Verb::Patch,
            gvk: known("StorageClass").gvk,
            namespace: String::new(),
            name: text(class, "/metadata/name").to_owned(),
            body,
            precondition: Precondition::Uid(uid(class).to_owned()),
            inverse,
            class: Class::Reversible,
        };
        let mut annotations = json!({DEFAULT: if on { "true" } else { "false" }});
        let mut before = json!({DEFAULT: was});
        if !on && class["metadata"]["annotations"].get(DEFAULT_BETA).is_some() {
            annotations[DEFAULT_BETA] = json!("false");
            before[DEFAULT_BETA] = class["metadata"]["annotations"][DEFAULT_BETA].clone();
        }
        let inverse = write(json!({"metadata": {"annotations": before}}), Vec::new());
        write(json!({"metadata": {"annotations": annotations}}), vec![inverse])
    };
    let done = if is(chosen) { chosen.clone() } else { step.write("set", set(chosen, true)).await? };
    for other in all.iter().filter(|class| is(class) && uid(class) != uid(chosen)) {
        step.write(&format!("unset-{}", text(other, "/metadata/name")), set(other, false)).await?;
    }
    Ok(done)
}
