//! The notes application of `examples/notes` in axum and minijinja. It has the same pages and
//! shares the entries in the store.
//!
//! ```console
//! $ cargo run --example notes                                     # a store of its own
//! $ STORE=redis://127.0.0.1:6379/0 cargo run --example notes      # the one of the other
//! ```
//!
//! `NOTES` is a folder of Markdown files, `DATA` a folder for comments, and `PORT` the port to
//! listen on. Read `model.rs` first, then `pages.rs`.

mod comments;
mod model;
mod pages;
mod settings;
mod templates;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use settings::Settings;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), String> {
    let settings = Settings::from_environment()?;
    let listener = settings.listen().await?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let app = pages::app(model::Notes::open(&settings)?)?;
    println!("The pages are at http://{address}/ until Ctrl-C.");
    axum::serve(listener, app)
        .await
        .map_err(|error| error.to_string())
}
