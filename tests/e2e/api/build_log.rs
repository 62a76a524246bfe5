//! A build's log by server-sent events: numbered, resumable, the same for every reader.

use futures_util::StreamExt as _;
use kiln_types::BuildEvent;

use super::caller::Api;
use super::events::{Event, Events};

/// Takes long enough to be watched, and says what readers can tell apart.
const TALK: &str =
    "for n in 1 2 3 4 5 6 7 8 9 10; do echo line $n; echo error $n >&2; sleep 0.1; done";

/// Numbered from `from` without gaps, ids as the numbers.
#[track_caller]
fn are_numbered(events: &[Event], from: u64) {
    for (event, number) in events.iter().zip(from..) {
        assert_eq!(event.data["seq"], number, "{events:?}");
        assert_eq!(event.id.as_deref(), Some(&*number.to_string()), "{events:?}");
    }
}

/// The log ends with `finished`, which is nowhere else.
#[track_caller]
fn end_once(events: &[Event]) {
    let ends = events.iter().filter(|event| event.data["type"] == "finished").count();
    assert_eq!(ends, 1, "{events:?}");
    assert_eq!(events.last().unwrap().data["type"], "finished", "{events:?}");
}

async fn open(api: &Api, id: &str, from: Option<u64>, last: Option<u64>) -> Events {
    let query = from.map(|from| format!("?from={from}")).unwrap_or_default();
    let mut request = api.request("GET", &format!("/v1/builds/{id}/log{query}"));
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last.to_string());
    }
    api.events(request).await
}

#[tokio::test]
async fn a_running_build_is_followed_and_resumed_anywhere() {
    let api = Api::start();
    let id = api.start_build("talk", &[TALK, "echo second step"]).await;
    // Two readers from the start, one of which goes away after some events, while the build runs.
    let mut first = open(&api, &id, None, None).await;
    let mut second = open(&api, &id, Some(0), None).await;
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|event: &Event| event.data["type"] == "output") {
        seen.push(first.next().await.expect("the build runs"));
    }
    let build = api.ask("GET", &format!("/v1/builds/{id}")).await.json();
    assert_eq!(build["status"], "running", "{build}");
    drop(first);
    let last = seen.len() as u64 - 1;
    let begun = second.next().await.unwrap();
    // `Last-Event-ID` goes before `from`; a reader from the future waits for its event.
    let resumed = open(&api, &id, Some(0), Some(last)).await;
    let ahead = open(&api, &id, Some(last + 3), None).await;
    let (second, resumed, ahead) = tokio::join!(second.rest(), resumed.rest(), ahead.rest());
    seen.extend(resumed);
    are_numbered(&seen, 0);
    end_once(&seen);
    assert_eq!(seen, [vec![begun], second].concat(), "two readers saw different logs");
    assert_eq!(ahead, seen[last as usize + 3..]);
    // What was said is all there, in its order.
    let text = |stream: &str| -> String {
        let of_stream = seen.iter().filter(|event| event.data["stream"] == stream);
        of_stream.map(|event| event.data["text"].as_str().unwrap()).collect()
    };
    let lines = |word: &str| (1..=10).fold(String::new(), |all, n| all + &format!("{word} {n}\n"));
    assert_eq!(text("stdout"), lines("line") + "second step\n");
    assert_eq!(text("stderr"), lines("error"));

    // The end of the log is the end of the build, and afterwards every reader gets exactly the rest.
    let build = api.ask("GET", &format!("/v1/builds/{id}")).await.json();
    assert_eq!(build["status"], "succeeded", "{build}");
    assert_eq!(build["image"], seen.last().unwrap().data["image"]);
    let count = seen.len() as u64;
    for from in 0..=count + 1 {
        let rest = open(&api, &id, Some(from), None).await.rest().await;
        assert_eq!(rest, seen[(from.min(count)) as usize..], "from {from}");
        let rest = open(&api, &id, None, Some(from)).await.rest().await;
        assert_eq!(rest, seen[((from + 1).min(count)) as usize..], "after {from}");
    }
    for far in [i64::MAX as u64, i64::MAX as u64 - 1] {
        assert_eq!(open(&api, &id, Some(far), None).await.rest().await, []);
        assert_eq!(open(&api, &id, None, Some(far)).await.rest().await, []);
    }
    // The typed client reads the same.
    let typed = api.client.build_log(&id.parse().unwrap(), 2).await.unwrap();
    let typed: Vec<BuildEvent> = typed.map(Result::unwrap).collect().await;
    let numbers: Vec<u64> = typed.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (2..count).collect::<Vec<_>>());
    for (typed, raw) in typed.iter().zip(&seen[2..]) {
        assert_eq!(serde_json::to_value(typed).unwrap(), raw.data);
    }
}

#[tokio::test]
async fn the_log_of_a_failed_build_survives_the_daemon() {
    let mut api = Api::start();
    let id = api.start_build("broken", &["echo before; exit 42"]).await;
    let seen = open(&api, &id, None, None).await.rest().await;
    are_numbered(&seen, 0);
    end_once(&seen);
    let last = &seen.last().unwrap().data;
    assert_eq!((&last["status"], &last["failure"]["exit_code"]), (&"failed".into(), &42.into()));
    api.restart();
    assert_eq!(open(&api, &id, None, None).await.rest().await, seen);
}

#[tokio::test]
async fn wrong_positions_are_refused() {
    let api = Api::start();
    let id = api.start_build("quick", &[]).await;
    let path = format!("/v1/builds/{id}/log");
    open(&api, &id, None, None).await.rest().await;
    for value in ["", "x", "-1", "1.5", "18446744073709551616"] {
        let request = api.request("GET", &path).header("Last-Event-ID", value);
        api.send(request).await.refuses(400, "invalid_request", "Last-Event-ID");
        let answer = api.ask("GET", &format!("{path}?from={value}")).await;
        answer.refuses(400, "invalid_request", "from");
    }
}
