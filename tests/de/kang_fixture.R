# Makes kang_fixture.json: edgeR's filter and TMM, limma's voom and moderated t on pseudobulks of measured cells.
# Run: python write_pseudobulk.py CELLS.h5ad bulk.csv && Rscript kang_fixture.R bulk.csv > kang_fixture.json
# bulk.csv has a row per sample: cell_type, condition, sample, n_cells, genes (limma 3.54.1, edgeR 3.40.2, jsonlite).
# The file keeps sums and a few genes' results, none of the counts.
suppressMessages({library(limma); library(edgeR); library(jsonlite)})
bulk <- read.csv(commandArgs(TRUE)[1], check.names = FALSE)
keys <- c("cell_type", "condition", "sample", "n_cells")
all <- t(as.matrix(bulk[, setdiff(names(bulk), keys)]))
digits <- function(x) signif(unname(x), 12)
outcome <- function(rows, form, use_voom, coefficient = NULL) {
  obs <- bulk[rows, ]
  obs$condition <- factor(obs$condition, levels = c("control", "stimulated"))
  design <- model.matrix(form, obs)
  y <- DGEList(all[, rows])
  y <- calcNormFactors(y[filterByExpr(y, group = obs$condition), , keep.lib.sizes = FALSE])
  contrast <- as.matrix(c(-1, 1, rep(0, ncol(design) - 2)))
  data <- if (use_voom) voom(y, design) else cpm(y, log = TRUE, prior.count = 3)
  fit <- lmFit(data, design)  # a contrast that is a coefficient needs no approximation
  fit <- eBayes(if (is.null(coefficient)) contrasts.fit(fit, contrast) else fit[, coefficient], trend = !use_voom)
  some <- seq(1, nrow(y), by = 40)
  adjusted <- p.adjust(fit$p.value[, 1], "BH")
  list(tested = nrow(y), genes = rownames(y)[some], tmm = digits(y$samples$norm.factors),
    e_sum = if (use_voom) digits(sum(data$E)), w_sum = if (use_voom) digits(sum(data$weights)),
    log_fc = digits(fit$coefficients[some, 1]), t = digits(fit$t[some, 1]), p = digits(fit$p.value[some, 1]),
    adjusted = digits(adjusted[some]), lods = digits(fit$lods[some, 1]), t_sum = digits(sum(fit$t)),
    abs_t_sum = digits(sum(abs(fit$t))), found = sum(adjusted < 0.05),
    prior_df = as.character(digits(fit$df.prior)), df_total = digits(fit$df.total[1]),
    prior_variance_sum = digits(sum(fit$s2.prior)))
}
types <- unique(bulk$cell_type)
by_type <- function(use_voom) setNames(lapply(types, function(type)
  outcome(which(bulk$cell_type == type), ~ 0 + condition, use_voom)), types)
cat(toJSON(list(samples = nrow(bulk), count_sum = sum(all), voom = by_type(TRUE), trend = by_type(FALSE),
  together = outcome(seq_len(nrow(bulk)), ~ 0 + condition + cell_type, TRUE),
  together_exact = outcome(seq_len(nrow(bulk)), ~ condition + cell_type, TRUE, "conditionstimulated")), digits = NA, auto_unbox = TRUE))
