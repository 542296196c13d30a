"""The names that are Keras's own, of Keras 2.0 to 3.15: what a file may call by name without anybody's trust.

All of them build a part of a model from plain values. What imports, unpickles, unmarshals or opens a file is left out
(Lambda, TFSMLayer, TorchModuleWrapper, FlaxLayer, JaxLayer, and wrappers of TensorFlow's functions, of which only the
pure ones are listed): resume.formats.trust judges those. tests/formats/test_vocabulary.py compares the lists with the
libraries that are installed.
"""

import re


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Layers, models, cells and wrappers.
LAYERS = _names(
    """
    AbstractRNNCell Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention
    AlphaDropout AtrousConvolution1D AtrousConvolution2D Attention AugMix AutoContrast Average AveragePooling1D
    AveragePooling2D AveragePooling3D AvgPool1D AvgPool2D AvgPool3D BaseAdaptiveAveragePooling
    BaseAdaptiveMaxPooling BaseAdaptivePooling BaseConv BaseConvTranspose BaseDenseAttention BaseDepthwiseConv
    BaseGlobalPooling BaseImagePreprocessingLayer BasePooling BaseRandomLayer BaseSeparableConv BaseSpatialDropout
    BasicLSTMCell BasicRNNCell BatchNorm BatchNormalization BatchNormalizationBase BatchNormalizationV1
    BatchNormalizationV2 Bidirectional CategoryCrossing CategoryEncoding CenterCrop Concatenate Container
    ContrastLimitedAdaptiveHistogramEqualization Conv Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D
    Conv3DTranspose ConvLSTM ConvLSTM1D ConvLSTM2D ConvLSTM3D ConvLSTMCell ConvRNN Convolution1D
    Convolution1DTranspose Convolution2D Convolution2DTranspose Convolution3D Convolution3DTranspose Cropping1D
    Cropping2D Cropping3D CuDNNGRU CuDNNLSTM CustomScaleLayer CutMix Deconv2D Deconv3D Deconvolution2D
    Deconvolution3D Dense DenseFeatures DepthwiseConv DepthwiseConv1D DepthwiseConv2D Discretization Distiller Dot
    Dropout DropoutWrapper DynamicEmbedding DynamicLookup ELU EinsumDense Embedding Equalization FeatureSpace
    Flatten FullyConnected Functional FunctionalPreprocessingStage GRU GRUCell GRUCellV1 GRUCellV2 GRUV1 GRUV2
    GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GlobalPooling1D GlobalPooling2D GlobalPooling3D Graph
    GroupNormalization GroupQueryAttention GroupedQueryAttention HashedCrossing Hashing Highway Identity IndexLookup
    Input InputLayer InputSpec IntegerLookup LSTM LSTMCell LSTMCellV1 LSTMCellV2 LSTMV1 LSTMV2 Layer
    LayerNormalization LayerRNNCell LayerScale LeakyReLU LinearModel LocallyConnected1D LocallyConnected2D Masking
    MaxNumBoundingBoxes MaxPool1D MaxPool2D MaxPool3D MaxPooling1D MaxPooling2D MaxPooling3D Maximum MaxoutDense
    MelSpectrogram Merge Minimum MixUp Model MultiHeadAttention MultiRNNCell Multiply Network Normalization PReLU
    ParametricSoftplus PeepholeLSTMCell Permute Pipeline Pooling1D Pooling2D Pooling3D PreprocessingLayer
    PreprocessingStage RMSNormalization RNN RNNCell RandAugment RandomBrightness RandomColorDegeneration
    RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip
    RandomFourierFeatures RandomGaussianBlur RandomGrayscale RandomHeight RandomHue RandomInvert RandomPerspective
    RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation RandomWidth
    RandomZoom ReLU RepeatVector Rescaling Reshape ResidualWrapper Resizing ReversibleEmbedding SReLU
    STFTSpectrogram SeparableConv SeparableConv1D SeparableConv2D SeparableConvolution1D SeparableConvolution2D
    SequenceFeatures Sequential SharpnessAwareMinimization SimpleRNN SimpleRNNCell Softmax Solarization
    SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells StochasticDepth
    StringLookup Subtract SyncBatchNormalization TextVectorization ThresholdedReLU TimeDistributed
    TimeDistributedDense UnitNormalization UpSampling1D UpSampling2D UpSampling3D WideDeepModel Wrapper
    ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """
)

# Keras 3's operations on tensors, as a functional model's graph holds them.
OPERATIONS = _names(
    """
    Abs Absolute AdaptiveAveragePool AdaptiveMaxPool Add AffineTransform All AllClose Amax Amin Angle Any Append
    Arange Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Argmax Argmin Argpartition Argsort Array ArraySplit
    AssociativeScan Average AveragePool BatchNorm BinaryCrossentropy Bincount BitwiseAnd BitwiseInvert
    BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor BroadcastTo CDist CTCDecode CTCLoss Cast
    CategoricalCrossentropy Cbrt Ceil Celu Cholesky CholeskyInverse Clip Concatenate Cond Conj Conjugate Conv
    ConvTranspose ConvertToTensor Copy Corrcoef Correlate Cos Cosh CountNonzero CropImages Cross Cumprod Cumsum
    Deg2rad DepthToSpace DepthwiseConv Det Diag Diagflat Diagonal Diff Digitize Divide DivideNoNan Dot
    DotProductAttention Dsplit Dstack Eig Eigh Einsum ElasticTransform Elu EmptyLike Equal Erf Erfc Erfinv Exp Exp2
    ExpandDims Expm1 ExtractPatches ExtractSequences FFT FFT2 Fabs FakeQuantWithMinMaxVars Flip Fliplr Flipud Floor
    FloorDivide Fmax Fmin Fmod Fold ForiLoop Full FullLike Function GaussianBlur Gcd Gelu Geomspace GetItem Glu
    Greater GreaterEqual HSVToRGB HardShrink HardSigmoid HardSilu HardTanh Heaviside Histogram Hsplit Hstack Hypot
    I0 IFFT2 IRFFT ISTFT Imag InTopK Inner Inv IsIn Isclose Isfinite Isinf Isnan Isneginf Isposinf Isreal JVP Kron
    LayerNorm Lcm Ldexp LeakyRelu LeftShift Less LessEqual Linspace Log Log10 Log1p Log2 LogSigmoid LogSoftmax
    Logaddexp Logaddexp2 Logdet LogicalAnd LogicalNot LogicalOr LogicalXor Logspace Logsumexp Lstsq LuFactor Map
    MapCoordinates Matmul MatrixRank Max MaxPool Maximum Mean Median Meshgrid Min Minimum Mish Mod Moments Moveaxis
    MultiHot Multiply NanToNum Nanargmax Nanargmin Nancumprod Nancumsum Nanmax Nanmean Nanmedian Nanmin
    Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar Ndim Negative Nextafter Nonzero Norm Normalize NotEqual
    OneHot OnesLike Outer PSNR Pad PadImages Percentile PerspectiveTransform Pinv Polar Power Prod Ptp Qr Quantile
    RFFT RGBToGrayscale RGBToHSV RMSNorm Rad2deg Ravel ReLU Real Rearrange Reciprocal Relu Relu6 Repeat Reshape
    Resize RightShift Roll Rot90 Round Rsqrt SSIM STFT SVD SaturateCast ScaleAndTranslate Scan Scatter ScatterUpdate
    SearchSorted SegmentMax SegmentMin SegmentProd SegmentReduction SegmentSum Select Selu SeparableConv Sigmoid
    Sign Signbit Silu Sin Sinc Sinh Size Slice SliceUpdate Slogdet SobelEdges SoftShrink Softmax Softplus Softsign
    Solve SolveTriangular Sort SpaceToDepth SparseCategoricalCrossentropy SparsePlus SparseSigmoid Sparsemax Split
    Sqrt Square Squareplus Squeeze Stack Std StopGradient Subtract Sum Swapaxes Switch Take TakeAlongAxis Tan Tanh
    TanhShrink Tensordot Threshold Tile TopK Trace Transpose Trapezoid Tril Triu TrueDivide Trunc Unfold Unique
    UnravelIndex Unstack Vander Var Vdot VectorizedMap View ViewAsComplex ViewAsReal Vsplit Vstack Where WhileLoop
    ZerosLike
    """
)

# Optimizers of every generation.
OPTIMIZERS = _names(
    """
    Adadelta Adafactor Adagrad Adam AdamW Adamax ExperimentalOptimizer Ftrl Lamb Lion LossScaleOptimizer
    LossScaleOptimizerV1 LossScaleOptimizerV3 MultiOptimizer Muon Nadam NonFusedAdam Optimizer OptimizerMap OptimizerV2
    RMSProp RMSprop SGD ScheduleFreeAdamW TFOptimizer
    """
)

# Learning-rate schedules.
SCHEDULES = _names(
    """
    CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay LearningRateSchedule LinearCosineDecay
    NoisyLinearCosineDecay PiecewiseConstantDecay PolynomialDecay
    """
)

# Losses that are objects.
LOSSES = _names(
    """
    BinaryCrossentropy BinaryFocalCrossentropy CTC CategoricalCrossentropy CategoricalFocalCrossentropy
    CategoricalGeneralizedCrossEntropy CategoricalHinge Circle CompileLoss CosineSimilarity Dice Hinge Huber
    KLDivergence LogCosh Loss LossFunctionWrapper MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError
    MeanSquaredLogarithmicError Poisson SparseCategoricalCrossentropy SquaredHinge Tversky
    """
)

# Metrics that are objects.
METRICS = _names(
    """
    AUC Accuracy BinaryAccuracy BinaryCrossentropy BinaryIoU CategoricalAccuracy CategoricalCrossentropy
    CategoricalHinge CompileMetrics ConcordanceCorrelation CosineSimilarity F1Score FBetaScore FalseNegatives
    FalsePositives Hinge IoU KLDivergence LogCoshError Mean MeanAbsoluteError MeanAbsolutePercentageError MeanIoU
    MeanMetricWrapper MeanRelativeError MeanSquaredError MeanSquaredLogarithmicError MeanTensor Metric MetricsList
    OneHotIoU OneHotMeanIoU PearsonCorrelation Poisson Precision PrecisionAtRecall PyMetric R2Score Recall
    RecallAtPrecision Reduce RootMeanSquaredError SensitivityAtSpecificity SensitivitySpecificityBase
    SparseCategoricalAccuracy SparseCategoricalCrossentropy SparseTopKCategoricalAccuracy SpecificityAtSensitivity
    SquaredHinge Sum SumOverBatchSize SumOverBatchSizeMetricWrapper TopKCategoricalAccuracy TrueNegatives
    TruePositives
    """
)

# Initialisers.
INITIALIZERS = _names(
    """
    Constant ConstantV2 GlorotNormal GlorotNormalV2 GlorotUniform GlorotUniformV2 HeNormal HeNormalV2 HeUniform
    HeUniformV2 Identity IdentityInitializer IdentityV2 Initializer LecunNormal LecunNormalV2 LecunUniform
    LecunUniformV2 Ones OnesV2 Orthogonal OrthogonalInitializer OrthogonalV2 RandomInitializer RandomNormal
    RandomNormalV2 RandomUniform RandomUniformV2 STFT STFTInitializer TruncatedNormal TruncatedNormalV2
    VarianceScaling VarianceScalingV2 Zeros ZerosV2
    """
)

# Regularisers.
REGULARIZERS = _names(
    """
    ActivityRegularizer L1 L1L2 L2 OrthogonalRegularizer Regularizer WeightRegularizer
    """
)

# Constraints.
CONSTRAINTS = _names(
    """
    Constraint MaxNorm MinMaxNorm NonNeg RadialConstraint UnitNorm
    """
)

# Dtype policies.
POLICIES = _names(
    """
    AWQDTypePolicy DTypePolicy DTypePolicyMap FloatDTypePolicy GPTQDTypePolicy Int4DTypePolicy Policy PolicyV1
    QuantizedDTypePolicy QuantizedFloat8DTypePolicy
    """
)

# Quantizers, generators, loss scales.
OTHERS = _names(
    """
    AbsMaxQuantizer Cross DynamicLossScale Feature FixedLossScale GPTQQuantizer LossScale OptimizerMap Quantizer
    SeedGenerator
    """
)

# Functions: activations.
ACTIVATIONS = _names(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear
    log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus
    sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold
    """
)

# Functions: losses, short names included.
LOSS_FUNCTIONS = _names(
    """
    BCE KLD MAE MAPE MSE MSLE bce binary_crossentropy binary_focal_crossentropy categorical_crossentropy
    categorical_focal_crossentropy categorical_generalized_cross_entropy categorical_hinge circle cosine
    cosine_proximity cosine_similarity crossentropy ctc dice hinge huber huber_loss is_categorical_crossentropy
    kl_divergence kld kullback_leibler_divergence log_cosh logcosh mae mape mean_absolute_error
    mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error mse msle poisson
    sparse_categorical_crossentropy squared_hinge tversky
    """
)

# Functions: metrics, short names included.
METRIC_FUNCTIONS = _names(
    """
    ACC BCE KLD MAE MAPE MSE MSLE acc accuracy bce binary_accuracy binary_crossentropy binary_focal_crossentropy
    categorical_accuracy categorical_crossentropy categorical_focal_crossentropy categorical_hinge ce
    concordance_correlation cosine cosine_proximity cosine_similarity crossentropy fbeta_score fmeasure hinge huber
    kl_divergence kld kullback_leibler_divergence log_cosh logcosh mae mape matthews_correlation mean_absolute_error
    mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error mse msle pearson_correlation
    poisson precision recall sparse_categorical_accuracy sparse_categorical_crossentropy
    sparse_top_k_categorical_accuracy squared_hinge top_k_categorical_accuracy
    """
)

# Initialisers, regularisers and constraints by the names that a layer accepts for them.
SHORT_NAMES = _names(
    """
    constant gaussian glorot_normal glorot_normalV2 glorot_uniform glorot_uniformV2 he_normal he_normalV2 he_uniform
    he_uniformV2 identity initializer l1 laplacian l1_l2 l2 lecun_normal lecun_normalV2 lecun_uniform
    lecun_uniformV2 max_norm maxnorm min_max_norm non_neg nonneg normal one ones orthogonal orthogonal_regularizer
    radial_constraint random_normal random_uniform stft truncated_normal uniform unit_norm unitnorm variance_scaling
    variancescaling zero zeros
    """
)

# What a functional model of Keras 2 may hold of TensorFlow (TFOpLambda): functions of tensors and nothing else.
TENSORFLOW_FUNCTIONS = re.compile(
    r"(compat\.v1\.)?("
    r"(math|nn|linalg|signal|strings|bitwise|image|sparse|ragged|quantization|sets)\.[a-z0-9_.]+"
    r"|experimental\.numpy\.(?!experimental)[a-z0-9_]+"
    r"|random\.(normal|uniform|truncated_normal|gamma|poisson|categorical|shuffle|stateless_\w+)"
    r"|__operators__\.\w+"
    r"|keras\.(activations|losses|metrics)\.(?!get$|(de)?serialize$)\w+"
    r"|keras\.backend\.(abs|all|any|argmax|argmin|batch_dot|cast|clip|concatenate|cos|cumprod|cumsum|dot"
    r"|elu|equal|exp|expand_dims|flatten|gather|greater|greater_equal|hard_sigmoid|l2_normalize|less"
    r"|less_equal|log|max|maximum|mean|min|minimum|not_equal|one_hot|ones_like|permute_dimensions|pow|prod"
    r"|relu|repeat|repeat_elements|reshape|reverse|round|shape|sigmoid|sign|sin|softmax|softplus|softsign"
    r"|sqrt|square|squeeze|stack|std|stop_gradient|sum|switch|tanh|temporal_padding|tile|transpose|var"
    r"|zeros_like)"
    r"|abs|acos|add|add_n|argmax|argmin|argsort|asin|atan|atan2|boolean_mask|broadcast_to|cast|ceil"
    r"|clip_by_norm|clip_by_value|complex|concat|constant|convert_to_tensor|cos|cosh|cumsum|divide"
    r"|dynamic_partition|dynamic_stitch|edit_distance|eig|einsum|ensure_shape|equal|exp|expand_dims"
    r"|extract_volume_patches|eye|fill|fingerprint|floor|floor_div|floordiv|floormod|gather|gather_nd"
    r"|greater|greater_equal|histogram_fixed_width|identity|identity_n|less|less_equal|linspace|log"
    r"|logical_and|logical_not|logical_or|matmul|matrix_square_root|maximum|meshgrid|minimum|mod|multiply"
    r"|negative|norm|not_equal|one_hot|ones|ones_like|pad|parallel_stack|pow|range|rank|realdiv"
    r"|reduce_(all|any|logsumexp|max|mean|min|prod|sum)|repeat|reshape|reverse|reverse_sequence|roll|round"
    r"|rsqrt|saturate_cast|scalar_mul|scatter_nd|searchsorted|sequence_mask|shape|shape_n|sigmoid|sign|sin"
    r"|sinh|size|slice|sort|space_to_batch|space_to_batch_nd|batch_to_space|split|sqrt|square|squeeze|stack"
    r"|stop_gradient|strided_slice|subtract|tan|tanh|tensor_scatter_nd_(add|max|min|sub|update)|tensordot"
    r"|tile|to_float|to_int32|to_int64|transpose|truediv|truncatediv|truncatemod|unique|unique_with_counts"
    r"|unravel_index|unstack|where|zeros|zeros_like"
    r")"
)
# The same, by the names of operations (TensorFlowOpLayer of TensorFlow 2.0 to 2.3).
TENSORFLOW_OPERATIONS = _names(
    """
    Abs Acos Acosh Add AddN AddV2 All Any ArgMax ArgMin Asin Asinh Atan Atan2 Atanh AvgPool AvgPool3D BatchMatMul
    BatchMatMulV2 BatchToSpace BatchToSpaceND BiasAdd Bitcast BroadcastArgs BroadcastTo Cast Ceil Cholesky
    ClipByValue Complex ComplexAbs Concat ConcatV2 Conj Const Conv2D Conv3D Cos Cosh Cross Cumprod Cumsum
    DepthToSpace DepthwiseConv2dNative Diag DiagPart Div DivNoNan Einsum Elu Equal Erf Erfc Exp ExpandDims Expm1 FFT
    FFT2D Fill Floor FloorDiv FloorMod FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual IFFT IFFT2D
    IRFFT Identity IdentityN Imag InTopKV2 Inv InvertPermutation IsFinite IsInf IsNan L2Loss LeakyRelu Less
    LessEqual LinSpace Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul MatrixBandPart MatrixDeterminant
    MatrixDiag MatrixDiagPart MatrixInverse Max MaxPool MaxPool3D MaxPoolV2 Maximum Mean Min Minimum MirrorPad Mod
    Mul MulNoNan Neg NotEqual OneHot OnesLike Pack Pad PadV2 Pow Prod RFFT Range Rank Real RealDiv Reciprocal Relu
    Relu6 Reshape ResizeBicubic ResizeBilinear ResizeNearestNeighbor Reverse ReverseSequence ReverseV2 Rint Roll
    Round Rsqrt ScatterNd SegmentMax SegmentMean SegmentSum Select SelectV2 Selu Shape ShapeN Sigmoid Sign Sin Sinh
    Size Slice Softmax Softplus Softsign SpaceToBatch SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square
    SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Svd Tan Tanh TensorScatterAdd TensorScatterUpdate
    Tile TopK TopKV2 Transpose TruncateDiv TruncateMod Unique Unpack UnsortedSegmentMax UnsortedSegmentMean
    UnsortedSegmentSum Where Xdivy Xlogy ZerosLike
    """
)
