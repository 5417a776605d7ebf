//! A ServiceAccount that is to execute a run: whether it is there, and whether it may do what the run needs.

use super::rbac::{Need, account_user};
use super::{Cluster, Error, known};
use crate::words::{Json, Kind, Problem};
use serde_json::json;
use std::collections::BTreeSet;

/// What is known about an account's rights.
#[derive(Debug, PartialEq)]
pub enum Rights {
    Enough,
    /// `patch persistentvolumes`, one each.
    Missing(Vec<String>),
    /// We may not ask.
    Unknown,
}

/// Groups that every server serves: nobody misses a right on what is not there.
const EVERYWHERE: [&str; 4] = ["", "apps", "batch", "storage.k8s.io"];

impl Cluster {
    /// Refuses unless the account is there.
    ///
    /// # Errors
    /// `NotFound`, or what kept us from looking.
    pub async fn has_account(&self, namespace: &str, account: &str) -> Result<(), Problem> {
        let found = self.find(&known("ServiceAccount"), namespace, account).await;
        match found.map_err(|e| e.problem("look for the service account of the run", None))? {
            Some(_) => Ok(()),
            None => Err(Problem::new(
                Kind::NotFound,
                format!("there is no service account `{account}` in namespace `{namespace}`"),
            )
            .object(format!("ServiceAccount:{namespace}/{account}"))),
        }
    }

    /// Asks for the rights of an account: on what is cluster-wide everywhere, on our own records in the one namespace.
    /// What is granted namespace by namespace is not known before it is known what is moved: preflight asks for that.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn rights_of(
        &self,
        namespace: &str,
        account: &str,
        everywhere: &BTreeSet<Need>,
        records: &BTreeSet<Need>,
    ) -> Result<Rights, Problem> {
        let everywhere = everywhere
            .iter()
            .filter(|need| need.is_of_the_cluster() && EVERYWHERE.contains(&need.group))
            .map(|need| (need, ""));
        let mut missing = Vec::new();
        for (need, place) in everywhere.chain(records.iter().map(|need| (need, namespace))) {
            match self.may_account(namespace, account, need, place).await {
                Ok(true) => {}
                Ok(false) => missing.push(need.told()),
                Err(Error::Answer { code: 403, .. }) => return Ok(Rights::Unknown),
                Err(e) => return Err(e.problem("ask for the rights of the service account", None)),
            }
        }
        Ok(if missing.is_empty() { Rights::Enough } else { Rights::Missing(missing) })
    }

    async fn may_account(&self, namespace: &str, account: &str, need: &Need, place: &str) -> Result<bool, Error> {
        let (plural, sub) = need.resource.split_once('/').unwrap_or((need.resource, ""));
        let (user, groups) = account_user(namespace, account);
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": {
                "verb": need.verb, "group": need.group, "resource": plural, "subresource": sub, "namespace": place,
                "name": need.name,
            }},
        });
        let answer: Json = self.review("subjectaccessreviews", &review).await?;
        Ok(answer["status"]["allowed"] == true)
    }
}
