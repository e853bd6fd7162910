use overstory_supervisor::Layout;

use super::*;

fn catalogue(programs: &[(&str, &str)]) -> Catalogue {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    std::fs::create_dir_all(layout.program_dir()).unwrap();
    for (name, keys) in programs {
        let text = format!("[program:{name}]\ncommand=/bin/{name}\n{keys}");
        std::fs::write(layout.program_dir().join(format!("{name}.conf")), text).unwrap();
    }
    Catalogue::load(&layout)
}

fn names(plan: &Plan<'_>) -> Vec<Vec<String>> {
    plan.sections.iter().map(|s| s.nodes.iter().map(|n| n.service.name.clone()).collect()).collect()
}

#[test]
fn what_is_required_is_started_before_and_in_the_same_section() {
    let catalogue = catalogue(&[("epmd", ""), ("rabbit", "hyp_requires=epmd"), ("web", "hyp_after=rabbit")]);
    let plan = Plan::new(&StackConfig::of([&["rabbit"], &[], &["web"]]), &catalogue).unwrap();
    assert_eq!(names(&plan), [vec!["epmd", "rabbit"], vec![], vec!["web"]]);
    assert_eq!(plan.sections[0].nodes[1].waits_for, ["epmd"]);
    assert_eq!(plan.sections[2].nodes[0].waits_for, Vec::<&str>::new());
    let levels: Vec<Vec<_>> =
        plan.sections[0].stop_levels().iter().map(|l| l.iter().map(|n| n.service.name.as_str()).collect()).collect();
    assert_eq!(levels, [["rabbit"], ["epmd"]]);
}

#[test]
fn patterns_take_every_service_and_none_is_fine() {
    let catalogue = catalogue(&[("dht-a", ""), ("dht-b", "hyp_after=dht-c"), ("dht-c", "")]);
    let plan = Plan::new(&StackConfig::of([&["fog*"], &["dht*", "dht-a"], &[]]), &catalogue).unwrap();
    assert_eq!(names(&plan), [vec![], vec!["dht-a", "dht-c", "dht-b"], vec![]]);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let catalogue = catalogue(&[
        ("a", "hyp_after=b"),
        ("b", "hyp_after=c"),
        ("c", "hyp_requires=a"),
        ("d", "hyp_after=nobody"),
        ("e", ""),
        ("f", "hyp_requires=e"),
    ]);
    let refused = |sections| Plan::new(&StackConfig::of(sections), &catalogue).unwrap_err().to_string();
    assert_eq!(
        refused([&["a", "b"], &[], &["c"]]),
        "b in [BACKEND] cannot wait for c: that is started later, in [FRONTEND]"
    );
    assert_eq!(refused([&["a", "b", "c"], &[], &[]]), "services wait for each other: a -> b -> c -> a");
    assert!(refused([&["d"], &[], &[]]).ends_with("hyp_after of d names \"nobody\", which is no service"));
    assert_eq!(
        refused([&["f"], &["e"], &[]]),
        "f in [BACKEND] cannot wait for e: that is started later, in [MIDDLEWARE]"
    );
    assert_eq!(
        refused([&[], &["zzz"], &[]]),
        "etc/hypcontrol.conf: [MIDDLEWARE] services: there is no service \"zzz\" in etc/supervisord.d"
    );
}

#[test]
fn an_unknown_key_is_refused_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    let home = Home::at(dir.path());
    std::fs::write(home.config_file("hypcontrol.conf"), "[BACKEND]\nservices = []\n[MIDLEWARE]\nservices = []\n")
        .unwrap();
    let error = StackConfig::load(&home).unwrap_err().to_string();
    assert!(error.contains("hypcontrol.conf") && error.contains("MIDLEWARE"), "{error}");
}
