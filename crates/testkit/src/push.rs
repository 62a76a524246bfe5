//! A minimal push, to any registry on loopback.

use anyhow::{Context as _, Result, ensure};
use reqwest::Client;

use crate::TestImage;

/// Pushes an image by plain HTTP under `repository:tag` to `host` (`127.0.0.1:5000`), with Basic credentials
/// if there are any.
pub async fn push(
    host: &str,
    repository: &str,
    tag: &str,
    image: &TestImage,
    credentials: Option<(&str, &str)>,
) -> Result<()> {
    let client = Client::builder().no_proxy().build()?;
    push_by(&client, &format!("http://{host}"), repository, tag, image, credentials).await
}

pub(crate) async fn push_by(
    client: &Client,
    address: &str,
    repository: &str,
    tag: &str,
    image: &TestImage,
    credentials: Option<(&str, &str)>,
) -> Result<()> {
    let mut all: Vec<(&TestImage, String)> = Vec::new();
    for child in &image.children {
        all.push((child, child.digest.to_string()));
    }
    all.push((image, tag.to_owned()));
    let base = format!("{address}/v2/{repository}");
    let authorized = |request: reqwest::RequestBuilder| match credentials {
        Some((user, password)) => request.basic_auth(user, Some(password)),
        None => request,
    };
    for (image, reference) in all {
        for (digest, blob) in &image.blobs {
            let begun = authorized(client.post(format!("{base}/blobs/uploads/"))).send().await?;
            ensure!(begun.status().as_u16() == 202, "upload begins with {}", begun.status());
            let location = begun.headers().get("location").context("an upload has a location")?;
            let mut url = begun.url().join(location.to_str()?)?;
            url.query_pairs_mut().append_pair("digest", &digest.to_string());
            let put = client.put(url).header("content-type", "application/octet-stream");
            let answer = authorized(put.body(blob.clone())).send().await?;
            ensure!(answer.status().as_u16() == 201, "{digest} is answered {}", answer.status());
        }
        let put = client
            .put(format!("{base}/manifests/{reference}"))
            .header("content-type", &image.media_type)
            .body(image.manifest.clone());
        let answer = authorized(put).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.as_u16() == 201, "manifest {reference} is answered {status}: {text}");
    }
    Ok(())
}
