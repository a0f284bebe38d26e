//! The listeners, and clients that do not behave.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Lab, config};
use octoplane_cni_server::listen::Listeners;
use octoplane_cni_server::wire::{Action, ByConfiguration, pb};
use octoplane_config::schema::Cni;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

fn request(container: &str) -> pb::CniAddRequest {
    pb::CniAddRequest {
        pod_info: Some(pb::PodDetails {
            pod_name: "p".into(),
            pod_namespace: "n".into(),
            container_id: container.into(),
        }),
        intf_info: Some(pb::IntfDetails {
            num_pfs: 1,
            ..Default::default()
        }),
        mac_addr: "02:00:00:00:00:01".into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_clients_do_not_keep_others_out_for_long() {
    // Without an IPv4 pool the answer has the address of the other family.
    let config = Cni {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        ..config(&["fd00::/64"])
    };
    let lab = Lab::new(&config);
    let listeners = Listeners::bind(&config).unwrap();
    let address = listeners.plain_address().unwrap();
    let functions = Arc::new(ByConfiguration(vec!["pod0".into()]));
    let action = Action::new(Arc::clone(&lab.attachments), functions);
    let (stop, stopped) = tokio::sync::watch::channel(());
    let wait = move || {
        let mut stopped = stopped.clone();
        async move { while stopped.changed().await.is_ok() {} }
    };
    let serving = tokio::spawn(listeners.serve(action, wait));
    let connect = || pb::cni_action_client::CniActionClient::connect(format!("http://{address}"));

    let answer = connect()
        .await
        .unwrap()
        .cmd_add(request("a"))
        .await
        .unwrap()
        .into_inner();
    let details = answer.ip_info.unwrap();
    assert_eq!(
        (details.version.as_str(), details.address.as_str()),
        ("6", "fd00::1")
    );
    assert_eq!(details.gateway, "fe80::1");

    // More than are let in at once: some say nothing, some nonsense.
    let mut idle = Vec::new();
    for number in 0..450 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if number % 3 == 0 {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n").await;
        }
        idle.push(stream);
    }
    let begin = std::time::Instant::now();
    let late = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let Ok(mut client) = connect().await
                && let Ok(answer) = client.cmd_add(request("a")).await
            {
                return answer.into_inner();
            }
        }
    });
    let again = late.await.unwrap().ip_info.unwrap();
    assert_eq!(again.address, details.address);
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());

    // A message that is too large is refused, and the connection serves on.
    let mut client = connect().await.unwrap();
    let mut large = request("a");
    large.vlan = "5".repeat(100_000);
    assert_eq!(
        client.cmd_add(large).await.unwrap_err().code(),
        tonic::Code::OutOfRange
    );
    client.cmd_add(request("a")).await.unwrap();
    drop(idle);
    drop(stop);
    tokio::time::timeout(Duration::from_secs(10), serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn an_address_that_nobody_has_yet_can_be_listened_at() {
    // Documentation addresses (RFC 5737, RFC 3849), in either family.
    for address in ["192.0.2.77:0", "[2001:db8::77]:0"] {
        let config = Cni {
            listen: Some(address.parse().unwrap()),
            ..Cni::default()
        };
        let listeners = Listeners::bind(&config).unwrap_or_else(|error| panic!("{error}"));
        assert!(listeners.plain_address().is_some());
    }
}
