//! stub
/// stub
#[derive(Default)]
pub struct Blocks;
impl Blocks { pub(crate) fn load(_: Vec<String>) -> Self { Self } }
