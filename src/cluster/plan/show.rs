//! A plan as text for a person, in the form of manifests.

use std::error::Error;

use serde_json::{Value, json};

use crate::cluster::plan::Plan;

/// What stands above the objects.
const HEAD: &str = "\
# The Job comes first and owns the Secrets. Their values are left out.
";

/// The objects as YAML, in the order of their creation. Of the values of
/// Secrets it tells no more than their length.
pub fn yaml(plan: &Plan) -> Result<String, Box<dyn Error>> {
    let mut text = HEAD.to_string();
    let job = serde_json::to_value(&plan.job)?;
    let secrets = plan.secrets.iter().map(serde_json::to_value);
    let secrets: Vec<Value> = secrets.collect::<Result<_, _>>()?;
    for object in [job].into_iter().chain(secrets.into_iter().map(masked)) {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&object)?);
    }
    Ok(text)
}

fn masked(mut secret: Value) -> Value {
    let data = secret["data"].as_object_mut();
    for value in data.into_iter().flat_map(|data| data.values_mut()) {
        let length = value.as_str().unwrap_or_default().len();
        *value = json!(format!("({length} characters of base64)"));
    }
    secret
}
