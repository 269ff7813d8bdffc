// Products of Q8_0 and Q5_0 weights with two or more tokens, for CPUs with AVX-512 VNNI.
//
// llama.cpp hands such products to llamafile_sgemm(). The linker sends those calls here (--wrap, see build.cmake); what
// this file does not take goes on to the original. (Weights of most other types never come here: llama.cpp reorders
// them when it loads a model, and has kernels for that.) Every element of the result is bit for bit the original's: the same
// integers, scales, fused multiply-adds and order of additions. Two things differ:
//
//   - a register holds the blocks of two tokens, and weights are read in their order and unpacked once for all tokens:
//     two to four times as fast;
//   - threads take pieces of rows when they are free. The original gives each thread a fixed share, so that one
//     millisecond which another process takes from one core is lost on all of them.

#include "ggml.h"
#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "llamafile/sgemm.h"

#include <cstdint>
#include <cstring>

extern "C" {
bool __real_llamafile_sgemm(const ggml_compute_params * params, int64_t m, int64_t n, int64_t k, const void * A,
                            int64_t lda, const void * B, int64_t ldb, void * C, int64_t ldc, int Atype, int Btype,
                            int Ctype);
bool __wrap_llamafile_sgemm(const ggml_compute_params * params, int64_t m, int64_t n, int64_t k, const void * A,
                            int64_t lda, const void * B, int64_t ldb, void * C, int64_t ldc, int Atype, int Btype,
                            int Ctype);
}

#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_PRODUCT
#include <immintrin.h>

// For AVX-512, whatever the rest is compiled for. After the headers: what they define must stay usable on every CPU.
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

namespace {

constexpr int BLOCK = 32;             // weights with one scale
constexpr int64_t MOST_BLOCKS = 1024; // in a row; wider weights go to the original
constexpr int ROWS = 8;               // rows of weights in a tile
constexpr int MOST_PAIRS = 2;         // of tokens in a tile: 16 sums in registers
constexpr int PIECES_PER_THREAD = 16;
constexpr int64_t LEAST_PIECE = 16;   // rows

float as_float(uint16_t half) { return _cvtsh_ss(half); }

// Weights as unsigned codes; the weight is scale * (code - ZERO).
template <typename T> struct Codes;

template <> struct Codes<block_q8_0> {
    static constexpr int ZERO = 128;
    static __m256i load(const block_q8_0 & block) {
        const __m256i signs = _mm256_set1_epi8(static_cast<char>(0x80));
        return _mm256_xor_si256(signs, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(block.qs)));
    }
};

__m256i nibbles(const uint8_t * from) {
    const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from));
    const __m256i apart = _mm256_inserti128_si256(_mm256_castsi128_si256(both), _mm_srli_epi16(both, 4), 1);
    return _mm256_and_si256(apart, _mm256_set1_epi8(15));
}

template <> struct Codes<block_q5_0> {
    static constexpr int ZERO = 16;
    static __m256i load(const block_q5_0 & block) {
        uint32_t fifth_bits;
        std::memcpy(&fifth_bits, block.qh, sizeof fifth_bits);
        const __m256i low = nibbles(block.qs);
        return _mm256_mask_add_epi8(low, fifth_bits, low, _mm256_set1_epi8(16));
    }
};

// ROWS rows of weights, unpacked once for all tokens: 288 KB of stack, of which a product touches what it needs.
struct Unpacked {
    alignas(64) uint8_t codes[ROWS][MOST_BLOCKS][BLOCK];
    float scales[ROWS][MOST_BLOCKS];

    __m256i codes_of(int row, int64_t l) const {
        return _mm256_load_si256(reinterpret_cast<const __m256i *>(codes[row][l]));
    }

    // The rows' blocks, of which there are k, lie `stride` blocks apart.
    template <typename T> void fill(const T * blocks, int64_t stride, int64_t k) {
        for (int row = 0; row < ROWS; ++row)
            for (int64_t l = 0; l < k; ++l) {
                const T & block = blocks[row * stride + l];
                // The tiles between two calls read nothing new: without this the memory would rest meanwhile.
                _mm_prefetch(reinterpret_cast<const char *>(&block + ROWS * stride), _MM_HINT_T0);
                _mm256_store_si256(reinterpret_cast<__m256i *>(codes[row][l]), Codes<T>::load(block));
                scales[row][l] = as_float(block.d);
            }
    }
};

struct Tokens {
    const block_q8_0 * blocks;
    int64_t stride;
    float * results; // one row of them for each token
    int64_t result_stride;
};

__m512 halves_swapped(__m512 x) { return _mm512_shuffle_f32x4(x, x, _MM_SHUFFLE(2, 3, 0, 1)); }

// The sums over each token's eight lanes, of four rows: ((0+4)+(2+6)) + ((1+5)+(3+7)) as in the original.
// Row r of the first token is element r, of the second element 8 + r.
__m512 sums_of_four_rows(const __m512 (&rows)[4]) {
    __m512 folded[4];
    for (int row = 0; row < 4; ++row)
        folded[row] = _mm512_add_ps(rows[row], halves_swapped(rows[row]));
    const __m512 first =
        _mm512_add_ps(_mm512_unpacklo_ps(folded[0], folded[1]), _mm512_unpackhi_ps(folded[0], folded[1]));
    const __m512 second =
        _mm512_add_ps(_mm512_unpacklo_ps(folded[2], folded[3]), _mm512_unpackhi_ps(folded[2], folded[3]));
    return _mm512_add_ps(_mm512_shuffle_ps(first, second, _MM_SHUFFLE(1, 0, 1, 0)),
                         _mm512_shuffle_ps(first, second, _MM_SHUFFLE(3, 2, 3, 2)));
}

// ROWS rows of weights, from `row`, with 2 * PAIRS tokens from `token`; of the last pair only one counts if `odd`.
template <typename T, int PAIRS>
__attribute__((noinline)) void tile(const Unpacked & weights, int64_t row, const Tokens & tokens, int64_t token,
                                    bool odd, int64_t k) {
    const block_q8_0 * blocks[2 * PAIRS];
    for (int i = 0; i < 2 * PAIRS; ++i)
        blocks[i] = tokens.blocks + (token + i - (odd && i == 2 * PAIRS - 1)) * tokens.stride;
    __m512 sums[PAIRS][ROWS] = {};
    for (int64_t l = 0; l < k; ++l) {
        __m512i bytes[PAIRS], start[PAIRS];
        __m512 scales[PAIRS];
        for (int p = 0; p < PAIRS; ++p) {
            const block_q8_0 &one = blocks[2 * p][l], &other = blocks[2 * p + 1][l];
            const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(one.qs));
            const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(other.qs));
            bytes[p] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
            // sum((code - ZERO) * byte) = sum(code * byte) - ZERO * sum(byte), exact in integers
            const __m512i zeros = _mm512_set1_epi8(static_cast<char>(Codes<T>::ZERO));
            start[p] = _mm512_sub_epi32(_mm512_setzero_si512(),
                                        _mm512_dpbusd_epi32(_mm512_setzero_si512(), zeros, bytes[p]));
            scales[p] = _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_set1_ps(as_float(one.d))),
                                           _mm256_set1_ps(as_float(other.d)), 1);
        }
        for (int r = 0; r < ROWS; ++r) {
            const __m512i codes = _mm512_broadcast_i64x4(weights.codes_of(r, l));
            const __m512 scale = _mm512_set1_ps(weights.scales[r][l]);
            for (int p = 0; p < PAIRS; ++p)
                sums[p][r] = _mm512_fmadd_ps(_mm512_mul_ps(scale, scales[p]),
                                             _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start[p], codes, bytes[p])),
                                             sums[p][r]);
        }
    }
    for (int p = 0; p < PAIRS; ++p)
        for (int r = 0; r < ROWS; r += 4) {
            const __m512 four = sums_of_four_rows({sums[p][r], sums[p][r + 1], sums[p][r + 2], sums[p][r + 3]});
            float * result = tokens.results + (token + 2 * p) * tokens.result_stride + row + r;
            _mm_storeu_ps(result, _mm512_castps512_ps128(four));
            if (!(odd && p == PAIRS - 1))
                _mm_storeu_ps(result + tokens.result_stride, _mm512_extractf32x4_ps(four, 2));
        }
}

// Rows `begin` to `end` (at least ROWS) with all n tokens.
template <typename T>
__attribute__((noinline)) void piece_of_product(Unpacked & unpacked, int64_t begin, int64_t end, int64_t n, int64_t k,
                                                const T * weights, int64_t stride, const Tokens & tokens) {
    for (int64_t next = begin; next < end; next += ROWS) {
        const int64_t row = next + ROWS > end ? end - ROWS : next; // the last tile may do rows again
        unpacked.fill(weights + row * stride, stride, k);
        int64_t token = 0;
        for (; n - token >= 2 * MOST_PAIRS; token += 2 * MOST_PAIRS)
            tile<T, MOST_PAIRS>(unpacked, row, tokens, token, false, k);
        const int64_t left = n - token;
        if (left > 2)
            tile<T, 2>(unpacked, row, tokens, token, left % 2 == 1, k);
        else if (left > 0)
            tile<T, 1>(unpacked, row, tokens, token, left % 2 == 1, k);
    }
}

template <typename T>
bool product(const ggml_compute_params * params, int64_t m, int64_t n, int64_t k, const void * weights, int64_t stride,
             const Tokens & tokens) {
    const int64_t share = (m / (params->nth * PIECES_PER_THREAD) + ROWS - 1) / ROWS * ROWS;
    const int64_t piece_rows = share > LEAST_PIECE ? share : LEAST_PIECE;
    // What is less than a tile goes with the last piece.
    const int64_t n_pieces = m < piece_rows ? 1 : (m + piece_rows - ROWS) / piece_rows;
    const bool shared = params->nth > 1;
    Unpacked unpacked; // here, once: some compilers touch every page of a frame when a function begins
    if (params->ith == 0)
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    if (shared)
        ggml_barrier(params->threadpool);
    for (int64_t piece = params->ith; piece < n_pieces; piece = ggml_threadpool_chunk_add(params->threadpool, 1))
        piece_of_product(unpacked, piece * piece_rows, piece == n_pieces - 1 ? m : (piece + 1) * piece_rows, n, k,
                         static_cast<const T *>(weights), stride, tokens);
    // Only when all are through may the next product set the counter.
    if (shared)
        ggml_barrier(params->threadpool);
    return true;
}

} // namespace

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

static bool cpu_has_avx512_vnni() {
    static const bool has = __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx512f") &&
                            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    return has;
}
#endif

extern "C" bool __wrap_llamafile_sgemm(const ggml_compute_params * params, int64_t m, int64_t n, int64_t k,
                                       const void * A, int64_t lda, const void * B, int64_t ldb, void * C, int64_t ldc,
                                       int Atype, int Btype, int Ctype) {
#ifdef HAS_PRODUCT
    const bool fits = n >= 2 && m >= ROWS && k <= MOST_BLOCKS;
    if (fits && Btype == GGML_TYPE_Q8_0 && Ctype == GGML_TYPE_F32 && cpu_has_avx512_vnni()) {
        const Tokens tokens{static_cast<const block_q8_0 *>(B), ldb, static_cast<float *>(C), ldc};
        switch (Atype) {
            case GGML_TYPE_Q8_0: return product<block_q8_0>(params, m, n, k, A, lda, tokens);
            case GGML_TYPE_Q5_0: return product<block_q5_0>(params, m, n, k, A, lda, tokens);
            default: break;
        }
    }
#endif
    return __real_llamafile_sgemm(params, m, n, k, A, lda, B, ldb, C, ldc, Atype, Btype, Ctype);
}
