//! `nexcage.v1.Images`: pulls that tell how far they are.
//!
//! A pull runs in a task of its own, so that a client that reads slowly does not slow it down; the task is
//! aborted when the client hangs up, as a `PullImage` is.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use nexcage_image_store::{
    AuthFields, Credentials, LayerProgress, LayerState, PullProgress, Reference, ReferenceError,
};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

use crate::cli::proto::images_server::{Images, ImagesServer};
use crate::cli::proto::{Layer, LayerPhase, PullRequest, PullUpdate};
use crate::cri::{InvalidField, refuse};
use crate::error::OpError;
use crate::runtime::Runtime;

/// Updates come at most this often.
const INTERVAL: Duration = Duration::from_millis(100);

/// The service, to be added to the server.
pub(crate) fn images(runtime: Arc<Runtime>) -> ImagesServer<ImagesService> {
    ImagesServer::new(ImagesService { runtime })
}

/// Implements the service.
#[derive(Debug)]
pub(crate) struct ImagesService {
    runtime: Arc<Runtime>,
}

#[tonic::async_trait]
impl Images for ImagesService {
    type PullStream = Pin<Box<dyn Stream<Item = Result<PullUpdate, Status>> + Send>>;

    async fn pull(
        &self,
        request: Request<PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let (reference, credentials) = asked(request.into_inner()).map_err(|e| refused(&e))?;
        let (sender, progress) = watch::channel(PullProgress::default());
        let runtime = Arc::clone(&self.runtime);
        let pull = self.runtime.tasks.spawn(async move {
            let pulled = runtime
                .images
                .pull(&reference, credentials, Some(sender))
                .await;
            pulled
                .map(|record| record.id.to_string())
                .map_err(OpError::from)
        });
        let pull = Some(AbortOnDropHandle::new(pull));
        Ok(Response::new(Box::pin(updates(Pull { pull, progress }))))
    }
}

/// A pull under way.
struct Pull {
    /// `None` when its result was given out.
    pull: Option<AbortOnDropHandle<Result<String, OpError>>>,
    progress: watch::Receiver<PullProgress>,
}

fn updates(pull: Pull) -> impl Stream<Item = Result<PullUpdate, Status>> + Send {
    futures_util::stream::unfold(pull, |mut pull| async move {
        let update = pull.next().await?;
        Some((update, pull))
    })
}

impl Pull {
    /// The next update; `None` after the result.
    async fn next(&mut self) -> Option<Result<PullUpdate, Status>> {
        let task = self.pull.as_mut()?;
        let news = async {
            tokio::time::sleep(INTERVAL).await;
            if self.progress.changed().await.is_err() {
                // The pull has ended, and its task is about to.
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            biased;
            // Cancel-safe: the handle stays in `self`.
            ended = task => ended,
            // Cancel-safe: a timer, then `watch::Receiver::changed`, whose news stay until they are seen.
            () = news => {
                let layers = layers(&self.progress.borrow_and_update());
                return Some(Ok(PullUpdate { layers, image_id: String::new() }));
            }
        };
        self.pull = None;
        let ended = ended.map_err(OpError::step("the pull was interrupted"));
        Some(match ended.and_then(|result| result) {
            Ok(image_id) => Ok(PullUpdate {
                layers: layers(&self.progress.borrow()),
                image_id,
            }),
            Err(error) => Err(refused(&error)),
        })
    }
}

fn refused(error: &OpError) -> Status {
    refuse("Pull", error)
}

fn asked(request: PullRequest) -> Result<(Reference, Credentials), OpError> {
    let PullRequest {
        reference,
        username,
        password,
    } = request;
    let reference = reference
        .parse()
        .map_err(|e: ReferenceError| InvalidField::invalid("reference", e.to_string()))?;
    let fields = AuthFields {
        username: &username,
        password: &password,
        ..AuthFields::default()
    };
    let credentials = Credentials::from_fields(fields)
        .map_err(|e| InvalidField::invalid("username", e.to_string()))?;
    Ok((reference, credentials))
}

fn layers(progress: &PullProgress) -> Vec<Layer> {
    progress.layers.iter().map(layer).collect()
}

fn layer(progress: &LayerProgress) -> Layer {
    let phase = match progress.state {
        LayerState::Waiting => LayerPhase::Waiting,
        LayerState::Downloading => LayerPhase::Downloading,
        LayerState::Spooled => LayerPhase::Downloaded,
        LayerState::Applied => LayerPhase::Unpacked,
    };
    Layer {
        id: progress.digest.to_string(),
        phase: phase.into(),
        done_bytes: progress.downloaded,
        total_bytes: progress.total,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use nexcage_image_store::Digest;

    use super::*;

    fn pull_of(
        progress: watch::Receiver<PullProgress>,
        work: impl Future<Output = Result<String, OpError>> + Send + 'static,
    ) -> Pull {
        Pull {
            pull: Some(AbortOnDropHandle::new(tokio::spawn(work))),
            progress,
        }
    }

    fn with_layer(downloaded: u64) -> PullProgress {
        let layer = LayerProgress {
            digest: Digest::of(b"layer"),
            total: 100,
            downloaded,
            state: LayerState::Downloading,
        };
        PullProgress {
            layers: vec![layer],
            ..PullProgress::default()
        }
    }

    #[tokio::test]
    async fn updates_are_few_and_the_last_one_has_the_image() {
        let (sender, progress) = watch::channel(PullProgress::default());
        let pull = pull_of(progress, async move {
            for bytes in 0..100 {
                sender.send_replace(with_layer(bytes));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok("sha256:00".to_owned())
        });
        let begun = tokio::time::Instant::now();
        let updates: Vec<_> = updates(pull).map(Result::unwrap).collect().await;
        let at_most = begun.elapsed().as_millis() / INTERVAL.as_millis() + 1;
        assert!(
            updates.len() >= 2 && updates.len() as u128 <= at_most,
            "{} updates",
            updates.len()
        );
        let (last, before) = updates.split_last().unwrap();
        assert_eq!(
            (last.image_id.as_str(), last.layers[0].done_bytes),
            ("sha256:00", 99)
        );
        assert!(
            before
                .iter()
                .all(|u| u.image_id.is_empty() && u.layers.len() == 1)
        );
    }

    #[tokio::test]
    async fn a_failed_pull_ends_the_stream_with_its_error() {
        let (_, progress) = watch::channel(PullProgress::default());
        let pull = pull_of(progress, async { Err(OpError::State("not now".into())) });
        let updates: Vec<_> = updates(pull).collect().await;
        let [Err(status)] = updates.as_slice() else {
            panic!("{updates:?}")
        };
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_ends_the_pull() {
        let (sender, progress) = watch::channel(PullProgress::default());
        let pull = pull_of(progress, async move {
            sender.send_replace(with_layer(1));
            sender.closed().await;
            std::future::pending().await
        });
        let task = pull.pull.as_ref().unwrap().abort_handle();
        let mut updates = Box::pin(updates(pull));
        assert!(updates.next().await.unwrap().is_ok());
        drop(updates);
        let ended = async {
            while !task.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended)
            .await
            .unwrap();
    }

    #[test]
    fn what_is_asked_for_is_checked() {
        let request = |reference: &str, username: &str, password: &str| PullRequest {
            reference: reference.into(),
            username: username.into(),
            password: password.into(),
        };
        let (_, credentials) = asked(request("debian:13", "", "")).unwrap();
        assert!(credentials.is_anonymous());
        assert!(
            !asked(request("debian", "ann", "secret"))
                .unwrap()
                .1
                .is_anonymous()
        );
        assert!(asked(request("", "", "")).is_err());
        assert!(asked(request("debian", "", "secret")).is_err());
        assert!(!format!("{:?}", request("debian", "ann", "secret")).contains("secret"));
    }
}
