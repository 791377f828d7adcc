# Makes limma_fixture.json: lmFit, contrasts.fit, eBayes of R's limma on 25 made-up genes.
# Run: Rscript limma_fixture.R > limma_fixture.json  (limma 3.54.1, jsonlite)
suppressMessages({library(limma); library(jsonlite)})
set.seed(1)
compound <- factor(rep(c("dmso", "a", "b", "c"), times = c(6, 3, 3, 4)), levels = c("dmso", "a", "b", "c"))
donor <- factor(rep(1:3, length.out = 16))
design <- model.matrix(~ 0 + compound + donor)
y <- matrix(rnorm(25 * 16, mean = 5), 25, 16) * sqrt(1 / rchisq(25, 4))
y[1:5, compound == "b"] <- y[1:5, compound == "b"] + 4
y[6, ] <- 3                                     # never varies
contrasts <- rbind(c(-1, -1, -1), diag(3), 0, 0)
fit <- eBayes(contrasts.fit(lmFit(y, design), contrasts))
even <- matrix(rnorm(25 * 16), 25, 16)          # variances that differ no more than by chance: prior df infinite
even <- even / sqrt(rowSums(residuals(lm(t(even) ~ 0 + design))^2 |> t()))
flat <- eBayes(lmFit(even, design))
keep <- function(f) list(effect = unname(f$coefficients), t = unname(f$t), p = unname(f$p.value),
  posterior = unname(f$s2.post), prior_df = as.character(f$df.prior), prior_variance = f$s2.prior,
  df_total = unname(f$df.total)[1], unscaled_sd = unname(f$stdev.unscaled[1, ]))
cat(toJSON(list(design = unname(design), contrasts = contrasts, y = y, fit = keep(fit),
  y_even = unname(even), fit_even = keep(flat)), digits = NA, auto_unbox = TRUE))
