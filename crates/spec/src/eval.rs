//! The engine for templates, conditions and schemas: implements [`windlass_core::eval::Evaluator`].
