//! What the production overlay says about a pod, as far as a container can be told.

use std::process::Command;

/// A pod's command line and environment.
pub struct Template {
    pub parallelism: u64,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
}

const TO_JSON: &str = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))";

/// Rendered; nothing, said aloud, where kubectl or PyYAML is missing.
///
/// Keys come from the environment here, for want of a Secrets Manager; tests/k8s judges the rest of the template.
pub fn production() -> Option<Template> {
    let shell = format!("kubectl kustomize scripts/k8s/overlays/production | python3 -c '{TO_JSON}'");
    let output = Command::new("sh").args(["-c", &shell]).output().expect("sh starts");
    let Ok(objects) = serde_json::from_slice::<Vec<serde_json::Value>>(&output.stdout) else {
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: the production overlay's pods, kubectl or PyYAML is missing"
        );
        return None;
    };
    let of_kind = |kind: &str| objects.iter().find(|o| o["kind"] == kind).expect("it is rendered");
    let job = &of_kind("Job")["spec"];
    let container = &job["template"]["spec"]["containers"][0];
    // What engine::Server::pod does is what the template asks for.
    let pod = &job["template"]["spec"]["securityContext"];
    assert_eq!((&pod["runAsUser"], &pod["runAsGroup"]), (&65532.into(), &65532.into()));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["resources"]["limits"]["memory"], "256Mi");
    let config = of_kind("ConfigMap")["data"].as_object().expect("a map").iter();
    let config = config.map(|(name, value)| (name.clone(), value.clone()));
    let own = container["env"].as_array().expect("a list").iter().filter(|e| e["value"].is_string());
    let own = own.map(|e| (e["name"].as_str().unwrap_or_default().to_owned(), e["value"].clone()));
    let environment = config
        .chain(own)
        .filter(|(name, _)| !name.starts_with("AWS_") && !name.contains("SECRET"))
        .map(|(name, value)| (name, value.as_str().expect("text").to_owned()))
        .collect();
    let words = container["args"].as_array().expect("a list").iter();
    Some(Template {
        parallelism: job["parallelism"].as_u64().expect("a number"),
        arguments: words.map(|word| word.as_str().expect("text").to_owned()).collect(),
        environment,
    })
}
