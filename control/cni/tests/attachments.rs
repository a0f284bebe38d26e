//! Attachments come and go, fail and come back.

mod common;

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Barrier};
use std::thread;

use common::{Forgetful, Lab, Memory, config, key, place, reservation, tables};
use octoplane_cni_server::{AttachError, Family, INIT, Reservation, Wanted};
use octoplane_config::schema::Cni;
use octoplane_tables::model::Change;

fn lab() -> Lab {
    Lab::new(&config(&["10.0.0.0/24", "fd00::/64"]))
}

#[test]
fn a_function_has_one_pod_at_a_time() {
    let lab = lab();
    let first = lab
        .attachments
        .add(reservation("a", "default"), place(0), 0)
        .unwrap();
    // 10.0.0.1 on: none of the gateway's, the uplink's or somebody else's.
    assert_eq!(first.addresses[0].to_string(), "10.0.0.1");
    assert_eq!(first.attached.as_ref().unwrap().identity, INIT);
    let again = lab
        .attachments
        .add(reservation("a", "default"), place(0), 0)
        .unwrap();
    assert_eq!(again, first);
    let second = lab
        .attachments
        .add(reservation("b", "system"), place(0), 0)
        .unwrap();
    let attached = second.attached.as_ref().unwrap();
    assert_eq!(attached.identity, 1234);
    assert_eq!(
        attached.labels,
        ["k8s:io.kubernetes.pod.namespace=system", "tier=system"]
    );
    assert_eq!(lab.endpoints(), ["system/b"]);
    assert_ne!(attached.endpoint, first.attached.unwrap().endpoint);
    // 10.0.0.3 is the uplink's own.
    let third = lab
        .attachments
        .add(reservation("c", "default"), place(1), 1)
        .unwrap();
    assert_eq!(third.addresses[0].to_string(), "10.0.0.4");
    assert!(lab.attachments.detach(&key("b")).unwrap());
    assert!(!lab.attachments.detach(&key("b")).unwrap());
    lab.attachments.detach(&key("c")).unwrap();
    assert!(lab.is_empty());
}

#[test]
fn what_cannot_be_remembered_is_undone() {
    let lab = lab();
    lab.memory.put_fails.store(true, SeqCst);
    let error = lab
        .attachments
        .add(reservation("a", "default"), place(0), 0)
        .unwrap_err();
    assert!(error.to_string().contains("no space left"), "{error}");
    assert!(lab.attachments.reserve(reservation("a", "default")).is_err());
    assert!(lab.is_empty());
    lab.memory.put_fails.store(false, SeqCst);
    lab.attachments.reserve(reservation("a", "default")).unwrap();
    lab.memory.put_fails.store(true, SeqCst);
    assert!(lab.attachments.attach(&key("a"), place(0), &[]).is_err());
    // It is reserved as before.
    assert_eq!(lab.attachments.get(&key("a")).unwrap().attached, None);
    assert!(lab.endpoints().is_empty());
    lab.memory.put_fails.store(false, SeqCst);
    lab.attachments.attach(&key("a"), place(0), &[]).unwrap();
    lab.memory.remove_fails.store(true, SeqCst);
    assert!(lab.attachments.detach(&key("a")).is_err());
    lab.memory.remove_fails.store(false, SeqCst);
    assert!(lab.attachments.detach(&key("a")).unwrap());
    assert!(lab.is_empty());
}

#[test]
fn what_is_kept_and_not_told_so_is_undone() {
    let lab = lab();
    lab.memory.put_fails_late.store(true, SeqCst);
    assert!(lab.attachments.reserve(reservation("a", "default")).is_err());
    let added = lab.attachments.add(reservation("b", "default"), place(0), 0);
    assert!(added.is_err());
    // A next life would give the address to two.
    assert_eq!(lab.memory.names(), [""; 0]);
    assert!(lab.is_empty());
}

#[test]
fn an_endpoint_that_is_not_saved_is_undone() {
    let lab = lab();
    let disk = Forgetful::default();
    lab.tables.keep(Arc::new(disk.clone()));
    disk.0.store(true, SeqCst);
    let error = lab
        .attachments
        .add(reservation("a", "default"), place(0), 0)
        .unwrap_err();
    assert!(error.to_string().contains("no space left"), "{error}");
    assert!(lab.is_empty(), "{:?}", lab.endpoints());

    disk.0.store(false, SeqCst);
    lab.attachments.reserve(reservation("a", "default")).unwrap();
    disk.0.store(true, SeqCst);
    assert!(lab.attachments.attach(&key("a"), place(0), &[]).is_err());
    assert_eq!(lab.endpoints(), [""; 0]);
    disk.0.store(false, SeqCst);
    lab.attachments.attach(&key("a"), place(0), &[]).unwrap();
    assert!(lab.attachments.detach(&key("a")).unwrap());
    assert!(lab.is_empty());
}

#[test]
fn what_the_tables_refuse_is_undone() {
    let lab = lab();
    let given = |addresses: &[&str]| Reservation {
        wanted: Wanted::Given(addresses.iter().map(|it| it.parse().unwrap()).collect()),
        ..reservation("a", "default")
    };
    // The uplink's own, and too many.
    let many: Vec<String> = (1..18).map(|number| format!("10.9.0.{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for addresses in [&["10.7.0.1", "10.0.0.3"][..], &["127.0.0.1"], &many] {
        let error = lab.attachments.add(given(addresses), place(0), 0).unwrap_err();
        assert!(matches!(error, AttachError::Tables(_)), "{error}");
        assert!(lab.is_empty(), "{addresses:?}");
    }
    let error = lab.attachments.add(given(&["10.7.0.1", "10.7.0.1"]), place(0), 0);
    assert!(matches!(error, Err(AttachError::Taken { .. })));
    let error = lab.attachments.add(reservation("a", "default"), place(9), 0);
    assert!(matches!(error, Err(AttachError::NoPort(_))));
    let mut uplink = place(0);
    uplink.port = "uplink".into();
    assert!(
        lab.attachments
            .add(reservation("a", "default"), uplink, 0)
            .is_err()
    );
    assert!(lab.is_empty());
}

#[test]
fn everybody_at_once() {
    let lab = Lab::new(&config(&["10.0.0.0/16"]));
    let start = Arc::new(Barrier::new(32));
    let threads: Vec<_> = (0..32_u8)
        .map(|number| {
            let (attachments, start) = (Arc::clone(&lab.attachments), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                for round in 0..20 {
                    // Eight containers over four functions, each wanted by four threads: added, added again elsewhere, removed.
                    let container = format!("c{}", (number + round) % 8);
                    let function = u32::from((number ^ round) % 4);
                    let port = place(u8::try_from(function).unwrap());
                    let added = attachments.add(reservation(&container, "default"), port, function);
                    added.unwrap();
                    if number % 4 == 0 {
                        attachments.detach(&key(&container)).unwrap();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    // Whatever the order was: an endpoint and a value for each attachment, no function and no address twice.
    let records = lab.attachments.list(None);
    let mut functions: Vec<_> = records.iter().map(|record| record.function).collect();
    functions.sort_unstable();
    functions.dedup();
    assert_eq!(functions.len(), records.len());
    assert_eq!(lab.endpoints().len(), records.len());
    assert_eq!(lab.attachments.pools()[0].used, records.len() as u64);
    for record in records {
        lab.attachments.check(&record.key).unwrap();
        lab.attachments.detach(&record.key).unwrap();
    }
    assert!(lab.is_empty());
}

#[test]
fn of_two_that_get_a_function_at_the_same_time_one_has_it() {
    let lab = Arc::new(Lab::new(&config(&["10.0.0.0/16"])));
    for _ in 0..50 {
        let start = Arc::new(Barrier::new(2));
        let threads: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|container| {
                let (lab, start) = (Arc::clone(&lab), Arc::clone(&start));
                thread::spawn(move || {
                    start.wait();
                    lab.attachments
                        .add(reservation(container, "default"), place(0), 0)
                        .unwrap()
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let records = lab.attachments.list(None);
        assert_eq!(records.len(), 1, "{records:?}");
        lab.attachments.check(&records[0].key).unwrap();
        lab.attachments.detach(&records[0].key).unwrap();
        assert!(lab.is_empty());
    }
}

#[test]
fn a_new_life_has_what_the_old_one_had() {
    let config = config(&["10.0.0.0/29"]);
    let old = Lab::new(&config);
    let a = old
        .attachments
        .add(reservation("a", "default"), place(0), 0)
        .unwrap();
    let b = old.attachments.reserve(reservation("b", "default")).unwrap();
    let c = old
        .attachments
        .add(reservation("c", "default"), place(1), 1)
        .unwrap();
    old.attachments.detach(&key("c")).unwrap();

    let new = Lab::over(&config, tables(4), old.memory.clone());
    assert_eq!(new.attachments.list(None), [a.clone(), b]);
    assert_eq!(new.endpoints(), ["default/a"]);
    assert_eq!(
        new.attachments
            .add(reservation("a", "default"), place(0), 0)
            .unwrap(),
        a
    );
    // An id is not given twice, and c's address still rests.
    let d = new
        .attachments
        .add(reservation("d", "default"), place(2), 2)
        .unwrap();
    assert!(d.attached.unwrap().endpoint > a.attached.as_ref().unwrap().endpoint);
    let e = new
        .attachments
        .add(reservation("e", "default"), place(3), 3)
        .unwrap();
    let f = new.attachments.reserve(reservation("f", "default")).unwrap_err();
    assert!(matches!(f, AttachError::Exhausted { resting: 1, .. }), "{f}");
    new.advance(60);
    let f = new.attachments.reserve(reservation("f", "default")).unwrap();
    assert_eq!(f.addresses, c.addresses);
    assert_ne!(e.addresses, c.addresses);
    // As long as f has it, what was kept of its rest is in nobody's way.
    new.attachments.collect();
    assert_eq!(new.attachments.pools()[0].used, 5);
    assert!(new.attachments.detach(&key("f")).unwrap());
    new.advance(60);
    new.attachments.collect();
    assert!(!new.memory.names().iter().any(|name| name.ends_with(".rest")));
    assert_eq!(new.attachments.pools()[0].used, 4);

    // Where the port is not there, the address is kept.
    let without = Lab::over(&config, tables(0), new.memory.clone());
    assert!(without.endpoints().is_empty());
    assert_eq!(without.attachments.get(&key("a")).unwrap(), a);
}

#[test]
fn what_cannot_be_read_is_not_passed_over() {
    let restore = |name: &str, value: &str| {
        let memory = Memory::default();
        memory.values.lock().unwrap().insert(name.into(), value.into());
        let attachments = octoplane_cni_server::Attachments::new(
            &Cni::default(),
            tables(1),
            Box::new(memory),
            Box::new(octoplane_cni_server::Agent),
        );
        attachments.restore().map_err(|error| error.to_string())
    };
    let good = r#"{"version":1,"key":{"container":"a","interface":"eth0"},"network":"n","pod":{"namespace":"","name":""},
        "addresses":["10.0.0.1"],"pooled":true,"created":1,"function":null,"attached":null}"#;
    assert_eq!(restore("a@eth0.json", good), Ok(()));
    for (name, value, why) in [
        ("a@eth0.json", &good[..40], "EOF"),
        ("b@eth0.json", good, "it is about container a"),
        (
            "a@eth0.json",
            &good.replace("\"version\":1", "\"version\":2"),
            "it has version 2",
        ),
        ("10.0.0.x.rest", "5", "its name is not an address"),
        ("10.0.0.1.rest", "", "it is not a time"),
    ] {
        let error = restore(name, value).unwrap_err();
        assert!(error.contains(name) && error.contains(why), "{error}");
    }
}

#[test]
fn what_nobody_comes_back_for_is_collected() {
    let lab = lab();
    let attached = lab
        .attachments
        .add(reservation("a", "default"), place(0), 0)
        .unwrap();
    lab.attachments.reserve(reservation("b", "default")).unwrap();
    lab.attachments
        .add(reservation("c", "default"), place(1), 1)
        .unwrap();
    lab.advance(100_000);
    lab.attachments.collect();
    assert_eq!(
        lab.attachments.list(None).len(),
        3,
        "before the grace time is over"
    );
    let id = attached.attached.unwrap().endpoint;
    lab.tables.apply(vec![Change::RemoveEndpoint { id }]).unwrap();
    lab.advance(599);
    lab.attachments.collect();
    assert_eq!(lab.attachments.list(None).len(), 3);
    lab.advance(1);
    lab.attachments.collect();
    // b's time was over; a's has only begun when its endpoint was missed.
    assert_eq!(lab.attachments.list(None).len(), 2);
    assert!(matches!(
        lab.attachments.check(&key("a")),
        Err(AttachError::Broken { .. })
    ));
    // Who comes back gets the endpoint again, and its time starts over.
    lab.attachments
        .add(reservation("a", "default"), place(0), 0)
        .unwrap();
    lab.attachments.collect();
    lab.attachments.check(&key("a")).unwrap();
    lab.tables.apply(vec![Change::RemoveEndpoint { id }]).unwrap();
    lab.advance(600);
    lab.attachments.collect();
    assert_eq!(lab.attachments.list(None).len(), 2);
    lab.advance(600);
    lab.attachments.collect();
    let left: Vec<_> = lab
        .attachments
        .list(None)
        .into_iter()
        .map(|it| it.key.container)
        .collect();
    assert_eq!(left, ["c"]);
}

#[test]
fn a_plugin_reserves_first_and_removes_last() {
    let lab = lab();
    let both = Reservation {
        wanted: Wanted::Pools(vec![Family::V4, Family::V6]),
        ..reservation("a", "default")
    };
    let reserved = lab.attachments.reserve(both.clone()).unwrap();
    assert_eq!(reserved.addresses.len(), 2);
    assert_eq!(lab.attachments.reserve(both).unwrap(), reserved);
    assert!(matches!(
        lab.attachments.reserve(reservation("a", "default")),
        Err(AttachError::Different { .. })
    ));
    assert!(matches!(
        lab.attachments.attach(&key("b"), place(0), &[]),
        Err(AttachError::NotFound(_))
    ));
    let attached = lab.attachments.attach(&key("a"), place(0), &[]).unwrap();
    assert_eq!(
        lab.attachments.attach(&key("a"), place(0), &[]).unwrap(),
        attached
    );
    assert!(matches!(
        lab.attachments.attach(&key("a"), place(1), &[]),
        Err(AttachError::Different { .. })
    ));
    assert!(lab.attachments.unplug(&key("a")).unwrap());
    assert!(lab.endpoints().is_empty());
    assert_eq!(lab.attachments.get(&key("a")).unwrap(), reserved);
    lab.attachments.detach(&key("a")).unwrap();
    assert!(lab.is_empty());

    // Addresses that come from elsewhere, when they are known.
    let none = Reservation {
        wanted: Wanted::Given(Vec::new()),
        ..reservation("d", "default")
    };
    lab.attachments.reserve(none).unwrap();
    let error = lab.attachments.attach(&key("d"), place(0), &[]).unwrap_err();
    assert_eq!(error.to_string(), "addresses: is missing");
    let given = ["10.66.0.2".parse().unwrap()];
    assert_eq!(
        lab.attachments
            .attach(&key("d"), place(0), &given)
            .unwrap()
            .addresses,
        given
    );
    lab.attachments.detach(&key("d")).unwrap();
    assert!(lab.is_empty());
    // They do not rest: somebody else knows when they are free.
    assert!(!lab.memory.names().contains(&"10.66.0.2.rest".into()));
}

#[test]
fn a_failed_attach_keeps_what_was_reserved() {
    let lab = lab();
    let none = Reservation {
        wanted: Wanted::Given(Vec::new()),
        ..reservation("a", "default")
    };
    lab.attachments.reserve(none).unwrap();
    let wrong = ["10.66.0.2".parse().unwrap(), "127.0.0.1".parse().unwrap()];
    assert!(lab.attachments.attach(&key("a"), place(0), &wrong).is_err());
    assert!(lab.attachments.get(&key("a")).unwrap().addresses.is_empty());
    // None of it is in the way.
    lab.attachments.attach(&key("a"), place(0), &wrong[..1]).unwrap();
    lab.attachments.detach(&key("a")).unwrap();
    assert!(lab.is_empty());
}
