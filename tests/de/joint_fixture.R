# Makes joint_fixture.json: one model over two cell types, ~ 0 + sm_cell_type + plate_name, by R's limma and edgeR on
# 120 simulated genes; genes that the filter keeps in each cell type. Run: Rscript joint_fixture.R > joint_fixture.json
# (limma 3.54.1, edgeR 3.40.2, jsonlite)
suppressMessages({library(limma); library(edgeR); library(jsonlite)})
set.seed(11)
obs <- expand.grid(well = 1:2, plate_name = c("p1", "p2", "p3"), sm_name = c("a", "b", "dmso"), cell_type = c("B", "T"))
n <- nrow(obs)
mean <- exp(rnorm(120, 2.5, 1.5)) %o% exp(rnorm(n, 0, 0.4))
mean[1:10, obs$sm_name == "a"] <- mean[1:10, obs$sm_name == "a"] * 4
mean[11:20, obs$sm_name == "b" & obs$cell_type == "T"] <- mean[11:20, obs$sm_name == "b" & obs$cell_type == "T"] / 4
mean[21:40, obs$cell_type == "T"] <- mean[21:40, obs$cell_type == "T"] * 8
mean[41:50, obs$plate_name == "p2"] <- mean[41:50, obs$plate_name == "p2"] * 2
counts <- matrix(rnbinom(120 * n, mu = mean, size = 10), 120, n)
sm_cell_type <- factor(paste(obs$sm_name, obs$cell_type))
kept <- Reduce(`&`, lapply(c("B", "T"), function(type) {
  own <- obs$cell_type == type
  filterByExpr(counts[, own], group = factor(obs$sm_name[own]))
}))
design <- model.matrix(~ 0 + sm_cell_type + plate_name, obs)
y <- calcNormFactors(DGEList(counts[kept, ]))
fit <- lmFit(voom(y, design))
pairs <- list(c("a B", "dmso B"), c("b B", "dmso B"), c("a T", "dmso T"), c("b T", "dmso T"))
contrasts <- sapply(pairs, function(pair) (colnames(design) == paste0("sm_cell_type", pair[1])) -
  (colnames(design) == paste0("sm_cell_type", pair[2])))
f <- eBayes(contrasts.fit(fit, contrasts))
digits <- function(x) signif(unname(x), 11)
cat(toJSON(list(counts = counts, well = obs$well, plate_name = as.character(obs$plate_name),
  sm_name = as.character(obs$sm_name), cell_type = as.character(obs$cell_type), kept = unname(kept),
  effect = digits(f$coefficients), t = digits(f$t), p = digits(f$p.value), df = f$df.total[1]),
  digits = NA, auto_unbox = TRUE))
