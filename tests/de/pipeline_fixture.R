# Makes pipeline_fixture.json: counts per million, TMM, filter, lowess, voom, weighted fits and log odds of R's
# limma and edgeR on 300 simulated genes. Run: Rscript pipeline_fixture.R > pipeline_fixture.json
# (limma 3.54.1, edgeR 3.40.2, jsonlite)
suppressMessages({library(limma); library(edgeR); library(jsonlite)})
set.seed(7)
compound <- factor(rep(c("dmso", "a", "b", "c"), times = c(6, 4, 4, 4)), levels = c("dmso", "a", "b", "c"))
donor <- factor(rep(c("d1", "d2", "d3"), length.out = 18))
age <- round(runif(18, 20, 60), 1)
mean <- exp(rnorm(300, 3, 2)) %o% exp(rnorm(18, 0, 0.4))
mean[1:20, compound == "a"] <- mean[1:20, compound == "a"] * 6
mean[21:30, compound == "b"] <- mean[21:30, compound == "b"] / 5
mean[31:60, donor == "d2"] <- mean[31:60, donor == "d2"] * 2
counts <- matrix(rnbinom(300 * 18, mu = mean, size = 1 / 0.15), 300, 18)
counts[299:300, ] <- 0L                          # never seen
design <- model.matrix(~ 0 + compound + donor + age)
contrasts <- rbind(c(-1, -1, -1), diag(3), 0, 0, 0)
digits <- function(x) signif(unname(x), 11)
y <- calcNormFactors(DGEList(counts))
size <- y$samples$lib.size * y$samples$norm.factors
v <- voom(y, design)
plain <- voom(counts, design)                    # without TMM
keep <- function(f, rows) list(effect = digits(f$coefficients[rows, ]), t = digits(f$t[rows, ]),
  p = digits(f$p.value[rows, ]), lods = digits(f$lods[rows, ]), unscaled_sd = digits(f$stdev.unscaled[some, ]),
  adjusted = digits(apply(f$p.value, 2, p.adjust, "BH")[rows, ]), posterior = digits(f$s2.post[rows]),
  prior_df = f$df.prior, prior_variance = digits(f$s2.prior), df_total = f$df.total[1])
some <- seq(1, 300, by = 9)
relative <- model.matrix(~ compound + donor + age)   # the contrasts are coefficients: nothing is approximated
x <- c(round(rnorm(150), 1), rnorm(100)); z <- sin(x) + rt(250, 2) * 0.3
odd <- matrix(rpois(60 * 4, 0.1), 60, 4); odd[1:12, ] <- rpois(48, 30); odd[1, 2] <- 5000L  # upper quartiles are 0
cat(toJSON(list(
  counts = counts, compound = as.character(compound), donor = as.character(donor), age = age,
  design = digits(design), design_names = colnames(design), relative_names = colnames(relative),
  contrasts = contrasts, some = some,
  tmm = digits(y$samples$norm.factors), tmm_reference = digits(calcNormFactors(counts, refColumn = 3)),
  tmm_trim = digits(calcNormFactors(counts, logratioTrim = 0.1, sumTrim = 0.2, Acutoff = -12)),
  odd = odd, odd_tmm = digits(calcNormFactors(odd)),
  cpm = digits(cpm(y, log = TRUE)[some, ]), cpm_prior = digits(cpm(counts, log = TRUE, prior.count = 0.5)[some, ]),
  kept_group = filterByExpr(counts, group = compound), kept_design = filterByExpr(y, design = design),
  kept_all = filterByExpr(counts, group = rep(1, 18)),
  voom = list(e = digits(v$E[some, ]), w = digits(v$weights[some, ]), w_sum = digits(colSums(v$weights)),
    plain_w = digits(plain$weights[some, ])),
  lowess = list(x = x, y = z, default = digits(lowess(x, z)$y), half = digits(lowess(x, z, f = 0.5)$y),
    once = digits(lowess(x, z, f = 0.2, iter = 0)$y), every = digits(lowess(x, z, f = 0.1, delta = 0)$y),
    tied = digits(lowess(rep(1:3, 4), 1:12, f = 0.3)$y)),
  weighted = keep(eBayes(contrasts.fit(lmFit(v), contrasts)), 1:300),
  exact = keep(eBayes(lmFit(v, relative)[, 2:4]), some),
  trend = keep(eBayes(contrasts.fit(lmFit(cpm(y, log = TRUE, prior.count = 3), design), contrasts), trend = TRUE), some),
  trend_mean = digits(rowMeans(cpm(y, log = TRUE, prior.count = 3)))
), digits = NA, auto_unbox = TRUE))
