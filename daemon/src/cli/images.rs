//! `nexcage images`.

use std::process::ExitCode;

use nexcage_cri_api::v1;
use serde::Serialize;

use super::args::{Format, ImagesArgs};
use super::client::{Client, request};
use super::error::CliError;
use super::human;
use super::output::{print, print_json};
use super::table::Table;

/// An image as `--output json` prints it.
#[derive(Debug, Serialize)]
struct Image {
    /// Digest of its configuration.
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    /// Bytes.
    size: u64,
    pinned: bool,
}

/// Prints all images.
pub(super) async fn run(mut client: Client, args: ImagesArgs) -> Result<ExitCode, CliError> {
    let answer = client
        .images
        .list_images(request(v1::ListImagesRequest { filter: None }))
        .await
        .map_err(CliError::rpc("cannot list images"))?;
    let images = images(answer.into_inner().images);
    match args.output.output {
        Format::Json => print_json(&images)?,
        Format::Table => print(&table(&images, args.no_trunc))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is shown of them, by name.
fn images(list: Vec<v1::Image>) -> Vec<Image> {
    let mut images: Vec<Image> = list
        .into_iter()
        .map(|image| Image {
            id: image.id,
            repo_tags: image.repo_tags,
            repo_digests: image.repo_digests,
            size: image.size,
            pinned: image.pinned,
        })
        .collect();
    images.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
    images
}

/// One row per tag; an image without tags has one row by digest.
fn table(images: &[Image], no_trunc: bool) -> String {
    let mut table = Table::new(&["IMAGE", "ID", "SIZE"]);
    for image in images {
        let names = match image.repo_tags.as_slice() {
            [] => image.repo_digests.get(..1).unwrap_or(&[]),
            tags => tags,
        };
        let id = if no_trunc {
            image.id.as_str()
        } else {
            human::short_id(&image.id)
        };
        let nameless = [String::new()];
        for name in if names.is_empty() { &nameless } else { names } {
            let name = if no_trunc {
                name.clone()
            } else {
                human::short_image(name)
            };
            table.row([name, id.to_owned(), human::size(image.size)]);
        }
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Image> {
        let id = |digit: &str| format!("sha256:{}", digit.repeat(64));
        images(vec![
            v1::Image {
                id: id("c"),
                size: 512,
                ..Default::default()
            },
            v1::Image {
                id: id("a"),
                repo_tags: vec![
                    "docker.io/library/debian:13".into(),
                    "reg.example/debian:13".into(),
                ],
                repo_digests: vec![format!("docker.io/library/debian@{}", id("1"))],
                size: 123_456_789,
                pinned: true,
                ..Default::default()
            },
            v1::Image {
                id: id("b"),
                repo_digests: vec![format!("docker.io/library/nginx@{}", id("2"))],
                size: 70_000_000,
                ..Default::default()
            },
        ])
    }

    #[test]
    fn a_row_per_tag() {
        insta::assert_snapshot!(table(&some(), false), @r"
        IMAGE                                         ID             SIZE
        docker.io/library/nginx@sha256:222222222222   bbbbbbbbbbbb   66.7 MiB
        -                                             cccccccccccc   512 B
        docker.io/library/debian:13                   aaaaaaaaaaaa   117.7 MiB
        reg.example/debian:13                         aaaaaaaaaaaa   117.7 MiB
        ");
        let whole = table(&some(), true);
        assert!(
            whole.contains(&format!("sha256:{} ", "a".repeat(64))),
            "{whole}"
        );
        assert!(
            whole.contains(&format!("@sha256:{} ", "2".repeat(64))),
            "{whole}"
        );
    }

    #[test]
    fn programs_get_json() {
        insta::assert_json_snapshot!(&some()[2], @r#"
        {
          "id": "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
          "repo_tags": [
            "docker.io/library/debian:13",
            "reg.example/debian:13"
          ],
          "repo_digests": [
            "docker.io/library/debian@sha256:1111111111111111111111111111111111111111111111111111111111111111"
          ],
          "size": 123456789,
          "pinned": true
        }
        "#);
    }
}
