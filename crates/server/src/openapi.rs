//! The OpenAPI document: what the routes say of themselves, and what holds for all of them.

use kiln_types::Problem;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, Ref, RefOr, ResponseBuilder,
    SecurityRequirement,
};
use utoipa::{PartialSchema, ToSchema};

const API_KEY: &str = "api_key";
const PROBLEM: &str = "Problem";

/// The description of the API (OpenAPI 3.1), the same for every configuration.
pub fn openapi() -> OpenApi {
    let mut document = crate::routes::all().into_openapi();
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    document.info = InfoBuilder::new()
        .title("Kiln")
        .version("v1")
        .description(Some("Turns the description of an environment into a running sandbox."))
        .license(Some(license))
        .build();
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("kiln_…")
        .description(Some("An API key. The daemon's Unix socket needs none."))
        .build();
    let mut schemas = vec![(Problem::name().into_owned(), Problem::schema())];
    Problem::schemas(&mut schemas);
    let components = document.components.get_or_insert_default();
    components.security_schemes.insert(API_KEY.to_owned(), RefOr::T(SecurityScheme::Http(key)));
    components.schemas.extend(schemas);
    let problem = ContentBuilder::new()
        .schema(Some(RefOr::Ref(Ref::from_schema_name(Problem::name()))))
        .build();
    let response = ResponseBuilder::new()
        .description("What went wrong, as a stable code, a sentence, and the way out")
        .content("application/problem+json", problem)
        .build();
    components.responses.insert(PROBLEM.to_owned(), RefOr::T(response));
    document.security = Some(vec![SecurityRequirement::new(API_KEY, Vec::<String>::new())]);
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let failure = RefOr::Ref(Ref::from_response_name(PROBLEM));
            operation.responses.responses.insert("default".to_owned(), failure);
        }
    }
    document
}
