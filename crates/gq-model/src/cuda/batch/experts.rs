//! Which experts a token gets, and their products.

use super::Batch;
use crate::arithmetic::{Choice, Routes, stored};
use crate::cuda::value::{Chosen, Value};
use crate::cuda::weights::{Codes, expert_factors};
use crate::error::DeviceError;
use crate::linear::Linear;
use crate::matrix::Matrix;
use crate::ops::Router;
use gq_cuda as kernels;

impl Batch<'_> {
    pub(super) fn choose(&mut self, scores: &Value, router: &Router) -> Result<Chosen, DeviceError> {
        let (tokens, experts, top) = (scores.rows, scores.columns(), router.spec.top_k);
        let Some(own) = expert_factors(router, experts) else {
            let routes = Routes::new(&self.host(scores)?, router);
            let numbers =
                |of: fn(&Choice) -> f32| Matrix { width: top, data: routes.choices.iter().map(of).collect() };
            // Ids as they are: their bits are what a kernel reads.
            let ids = self.runner.bring(&numbers(|choice| f32::from_bits(choice.expert as u32)))?;
            let factors = self.runner.bring(&numbers(|choice| choice.factor))?;
            return Ok(Chosen { ids, factors, tokens, top });
        };
        let scores = self.plain(scores)?;
        let scales = self.runner.weights.constant(&self.runner.gpu, &own)?;
        let (ids, factors) = (self.runner.value(tokens, top, 1)?, self.runner.value(tokens, top, 1)?);
        let choose = kernels::ChooseExperts {
            scores: scores.all_parts(),
            scales,
            ids: ids.span(),
            factors: factors.span(),
            tokens,
            experts,
            top,
        };
        self.runner.launch(choose.launch())?;
        Ok(Chosen { ids, factors, tokens, top })
    }

    pub(super) fn grouped(
        &mut self,
        x: &Value,
        routes: &Chosen,
        linear: &Linear,
    ) -> Result<Value, DeviceError> {
        if !Self::has_kernels(linear) {
            let (x, routes) = (self.host(x)?, self.routes(routes)?);
            let y = stored::grouped(self.runner.level, linear, &x, &routes, &mut |_, _| ());
            return self.runner.bring(&y);
        }
        let weight = self.runner.weights.get(&self.runner.gpu, linear)?;
        let (key, exact) = (weight.rotation, matches!(weight.codes, Codes::Exact { .. }));
        let plain = if exact { Some(self.whole(x)?) } else { None };
        let rounded = if exact { None } else { Some(self.rounded(x, key)?) };
        let y = self.product(&[linear], x.rows, rounded.as_ref(), plain.as_ref(), Some(routes), None)?;
        if linear.bias().is_none() {
            return Ok(y);
        }
        let (routes, mut out) = (self.routes(routes)?, self.host(&y)?);
        routes.add_biases(linear, &mut out);
        self.runner.bring(&out)
    }

    /// Which experts were chosen, on the host.
    pub(super) fn routes(&mut self, chosen: &Chosen) -> Result<Routes, DeviceError> {
        let (ids, factors) = (self.host(&chosen.ids)?, self.host(&chosen.factors)?);
        let choices = ids.data.iter().zip(factors.data);
        let choices = choices.map(|(id, factor)| Choice { expert: id.to_bits() as usize, factor });
        Ok(Routes { tokens: chosen.tokens, choices: choices.collect() })
    }
}
