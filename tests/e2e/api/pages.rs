//! Lists in pages: nothing twice, nothing left out, newest first.

use kiln_types::api::Page;
use serde_json::{Value, json};

use super::caller::Api;
use crate::fixture::busybox;

const COUNT: usize = 25;

#[tokio::test]
async fn pages_have_no_gap_and_no_repeat() {
    let api = Api::start();
    let mut made = Vec::new();
    for number in 0..COUNT {
        // Each an image of its own, without a step that runs.
        let source = json!({ "definition": {
            "base": { "rootfs": busybox() },
            "steps": [{ "type": "env", "vars": { "N": number.to_string() } }],
        } });
        let body = json!({ "source": source, "name": format!("image-{number:02}") });
        let build = api.post("/v1/builds", body.to_string()).await.is(202).json();
        let id = build["id"].as_str().unwrap().to_owned();
        // The log ends with the build.
        api.ask("GET", &format!("/v1/builds/{id}/log")).await.is(200);
        made.push(id);
    }
    made.reverse();
    let mut names: Vec<String> = (0..COUNT).rev().map(|n| format!("image-{n:02}:latest")).collect();
    // Below them all is the base, which has no name.
    names.push("-".to_owned());
    for (list, expected) in [("builds", &made), ("images", &names)] {
        for limit in [1, 7, 24, 25, 26, 1000] {
            let pages = walk(&api, list, limit, |_| ()).await;
            let seen: Vec<String> = pages.iter().flatten().map(|item| key(list, item)).collect();
            assert_eq!(&seen, expected, "{list} by {limit}");
            assert!(pages.iter().rev().skip(1).all(|page| page.len() == limit), "{list} {limit}");
            assert_eq!(pages.len(), expected.len().div_ceil(limit), "{list} by {limit}");
        }
        let all = api.ask("GET", &format!("/v1/{list}")).await.is(200).json();
        let count = all["items"].as_array().unwrap().len();
        assert_eq!((count, &all["next"]), (expected.len(), &Value::Null));
    }
    // An image that is removed between two pages shifts nothing.
    let mut removed = Vec::new();
    let pages = walk(&api, "images", 5, |page: &[Value]| {
        let name = key("images", &page[0]);
        if name != "-" {
            api.kiln.ok(&["rmi", &name]);
            removed.push(name);
        }
    })
    .await;
    let seen: Vec<String> = pages.iter().flatten().map(|item| key("images", item)).collect();
    assert_eq!(seen, names);
    assert_eq!(removed.len(), 5);
    let left = api.client.images().await.unwrap();
    assert_eq!(left.len(), names.len() - removed.len());
    // The list goes on where a page ended also when that page's last image is gone.
    let page = api.ask("GET", "/v1/images?limit=2").await.is(200).json();
    let cursor = page["next"].as_str().unwrap();
    let last = key("images", &page["items"][1]);
    api.client.remove_image(&last).await.unwrap();
    let rest = api.ask("GET", &format!("/v1/images?limit=1000&cursor={cursor}")).await.is(200);
    assert_eq!(rest.json()["items"].as_array().unwrap().len(), left.len() - 2);
}

#[tokio::test]
async fn snapshots_and_sandboxes_come_in_pages() {
    let api = Api::with_box();
    // In an order that is not that of the names; a snapshot of an unchanged disk costs nothing.
    let names: Vec<String> = (0..COUNT).map(|n| format!("s{:02}", n * 7 % COUNT)).collect();
    for name in &names {
        let body = json!({ "sandbox": "b", "name": name }).to_string();
        api.post("/v1/snapshots", body).await.is(201);
    }
    let newest_first: Vec<String> = names.into_iter().rev().collect();
    for limit in [1, 7, 25] {
        let pages = walk(&api, "snapshots", limit, |_| ()).await;
        let seen: Vec<String> = pages.iter().flatten().map(|item| key("snapshots", item)).collect();
        assert_eq!(seen, newest_first, "by {limit}");
    }
    let page = api.ask("GET", "/v1/snapshots?limit=2").await.is(200).json();
    let cursor = page["next"].as_str().unwrap();
    api.ask("DELETE", &format!("/v1/snapshots/{}", newest_first[1])).await.is(204);
    let rest = api.ask("GET", &format!("/v1/snapshots?cursor={cursor}")).await.is(200).json();
    assert_eq!(key("snapshots", &rest["items"][0]), newest_first[2]);
    let mut made = vec!["b".to_owned()];
    for name in ["c", "a", "d"] {
        api.kiln.ok(&["create", "box", "--name", name]);
        made.insert(0, name.to_owned());
    }
    let pages = walk(&api, "sandboxes", 3, |_| ()).await;
    let seen: Vec<String> = pages.iter().flatten().map(|item| key("sandboxes", item)).collect();
    assert_eq!(seen, made);
}

/// All pages of a list; `between` is called after each.
async fn walk(
    api: &Api,
    list: &str,
    limit: usize,
    mut between: impl FnMut(&[Value]),
) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut path = format!("/v1/{list}?limit={limit}");
    loop {
        let page: Page<Value> =
            serde_json::from_value(api.ask("GET", &path).await.is(200).json()).unwrap();
        assert!(page.items.len() <= limit && pages.len() <= 2 * COUNT, "{list} does not end");
        between(&page.items);
        pages.push(page.items);
        match page.next {
            Some(cursor) => path = format!("/v1/{list}?limit={limit}&cursor={cursor}"),
            None => return pages,
        }
    }
}

fn key(list: &str, item: &Value) -> String {
    let key = match list {
        "builds" => &item["id"],
        "images" => &item["names"][0],
        _ => &item["name"],
    };
    key.as_str().unwrap_or("-").to_owned()
}
