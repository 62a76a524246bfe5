//! Where blocking work goes.

use crate::ImagesError;

/// Runs `work` on a thread that may block. A panic in it goes on in the caller.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, ImagesError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ImagesError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ImagesError::ShuttingDown),
        },
    }
}
