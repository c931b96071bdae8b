//! The image service.

use anyhow::ensure;
use nexcage_cri_api::v1::*;
use nexcage_tests::tools;
use tonic::Code;

use crate::asking::{Findings, with_client};

#[test]
fn images() {
    with_client(async |_, mut client| {
        let mut findings = Findings::default();
        let named = |name: &str| {
            Some(ImageSpec {
                image: name.to_owned(),
                ..ImageSpec::default()
            })
        };
        let pull = |image| PullImageRequest {
            image,
            ..Default::default()
        };
        let registry = tools::registry()?;
        let invalid = [
            ("", "image"),
            ("Upper/Case:1", "Upper/Case"),
            ("registry.k8s.io/a b", "a b"),
            ("registry.k8s.io/pause@sha256:12", "sha256:12"),
            ("registry.k8s.io/../../etc/passwd:1", ".."),
        ];
        findings.invalid(
            "no image",
            client.images.pull_image(pull(None)).await,
            "image",
        );
        for (name, word) in invalid {
            let answer = client.images.pull_image(pull(named(name))).await;
            findings.invalid(&format!("pull {name:?}"), answer, word);
        }
        let answer = client
            .images
            .pull_image(pull(named(&format!("{registry}/no/such:image"))))
            .await;
        findings.refused("an image nobody has", answer, &[Code::NotFound], "no/such");
        let digest = format!("{registry}/pause@sha256:{}", "0".repeat(64));
        let answer = client.images.pull_image(pull(named(&digest))).await;
        findings.refused(
            "a digest nobody has",
            answer,
            &[Code::NotFound],
            "sha256:0000",
        );

        let ask = |image| ImageStatusRequest {
            image,
            verbose: false,
        };
        findings.invalid(
            "status of nothing",
            client.images.image_status(ask(None)).await,
            "image",
        );
        let answer = client
            .images
            .image_status(ask(named("registry.k8s.io/no/such:image")))
            .await;
        match answer {
            Ok(answer) if answer.get_ref().image.is_some() => {
                findings
                    .0
                    .push("the status of an image that is not there has an image".to_owned());
            }
            answer => findings.accepted("the status of an image that is not there", answer),
        }
        let remove = RemoveImageRequest {
            image: named("registry.k8s.io/no/such:image"),
        };
        findings.accepted(
            "removal of an image that is not there",
            client.images.remove_image(remove).await,
        );
        let remove = RemoveImageRequest { image: None };
        findings.invalid(
            "removal of nothing",
            client.images.remove_image(remove).await,
            "image",
        );
        let list = ListImagesRequest::default();
        let images = client.images.list_images(list).await?.into_inner().images;
        ensure!(images.is_empty(), "a failed pull is listed: {images:?}");
        findings.none()
    });
}
