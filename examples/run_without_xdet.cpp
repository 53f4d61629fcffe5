// Run a finished model on a JPEG with ONNX Runtime's C++ API, libjpeg-turbo and a JSON parser.
//
// Usage: run_without_xdet MODEL.onnx PHOTO.jpg [--no-vnni]
//
// Prints a line per box: class, score, corners in pixels of the photograph (its EXIF orientation is not looked at). The file's
// metadata say how a photograph becomes the network's picture (docs/images.md) and what the classes are called. Build with the
// CMakeLists.txt beside this file; examples/README.md says where the libraries come from.
//
// --no-vnni is for x86 CPUs without AVX-512 VNNI or AVX-VNNI, whose fast uint8 kernels saturate: it asks ONNX Runtime for
// the exact ones. It costs time where VNNI exists, and means nothing on ARM.

#include <onnxruntime_cxx_api.h>
#include <turbojpeg.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {  // RGB, rows top to bottom
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;

  Picture(int w, int h, uint8_t fill = 0) : width(w), height(h), rgb(static_cast<size_t>(w) * h * 3, fill) {}
  uint8_t* at(int row, int column) { return &rgb[(static_cast<size_t>(row) * width + column) * 3]; }
  const uint8_t* at(int row, int column) const { return &rgb[(static_cast<size_t>(row) * width + column) * 3]; }
};

Picture read_jpeg(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<unsigned char> bytes{std::istreambuf_iterator<char>(file), {}};
  const std::unique_ptr<void, int (*)(void*)> decoder(tjInitDecompress(), tjDestroy);
  int width = 0, height = 0, subsampling = 0, colors = 0;
  if (tjDecompressHeader3(decoder.get(), bytes.data(), bytes.size(), &width, &height, &subsampling, &colors) != 0)
    throw std::runtime_error(path + ": not a readable JPEG file: " + tjGetErrorStr2(decoder.get()));
  if (static_cast<int64_t>(width) * height > 100'000'000) throw std::runtime_error(path + ": too large");
  Picture picture(width, height);
  if (tjDecompress2(decoder.get(), bytes.data(), bytes.size(), picture.rgb.data(), width, 0, height, TJPF_RGB,
                    TJFLAG_ACCURATEDCT) != 0)
    throw std::runtime_error(path + ": a damaged JPEG file: " + tjGetErrorStr2(decoder.get()));
  return picture;
}

// Half-pixel centre of a target row (or column) in the source, in float32.
float centre(int index, int source, int target) {
  return (static_cast<float>(index) + 0.5F) * static_cast<float>(static_cast<double>(source) / target);
}

Picture nearest(const Picture& from, int width, int height) {
  const auto pick = [](int i, int source, int target) {
    return std::min(static_cast<int>(std::floor(centre(i, source, target))), source - 1);
  };
  Picture to(width, height);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      std::copy_n(from.at(pick(y, from.height, height), pick(x, from.width, width)), 3, to.at(y, x));
  return to;
}

// The two source rows (or columns) of a target row, and the weight of the second.
struct Neighbours {
  int low, high;
  float weight;
};

Neighbours neighbours(int index, int source, int target) {
  const float middle = centre(index, source, target) - 0.5F, floor = std::floor(middle);
  const auto clamp = [source](float x) { return std::clamp(static_cast<int>(x), 0, source - 1); };
  return {clamp(floor), clamp(std::ceil(middle)), middle - floor};
}

Picture bilinear(const Picture& from, int width, int height) {
  const auto mix = [](float a, float b, float weight) { return a + (b - a) * weight; };  // built without fused operations
  Picture to(width, height);
  for (int y = 0; y < height; ++y) {
    const Neighbours row = neighbours(y, from.height, height);
    for (int x = 0; x < width; ++x) {
      const Neighbours column = neighbours(x, from.width, width);
      for (int c = 0; c < 3; ++c) {
        const auto pixel = [&](int r, int k) { return static_cast<float>(from.at(r, k)[c]); };
        const float above = mix(pixel(row.low, column.low), pixel(row.low, column.high), column.weight);
        const float below = mix(pixel(row.high, column.low), pixel(row.high, column.high), column.weight);
        to.at(y, x)[c] = static_cast<uint8_t>(std::nearbyint(mix(above, below, row.weight)));
      }
    }
  }
  return to;
}

// Pillow's BILINEAR along one axis: a triangle as wide as a target pixel, its weights in 22 bits.
struct Triangle {
  int first = 0;
  std::vector<int> weights;
};

Triangle triangle(int index, int source, int target) {
  const double scale = static_cast<double>(source) / target, reach = std::max(scale, 1.0), middle = (index + 0.5) * scale;
  Triangle found;
  found.first = std::max(static_cast<int>(middle - reach + 0.5), 0);
  const int end = std::min(static_cast<int>(middle + reach + 0.5), source);
  std::vector<double> weights;
  double sum = 0;
  for (int x = found.first; x < end; ++x) {
    weights.push_back(std::max(1 - std::abs((x - middle + 0.5) * (1 / reach)), 0.0));
    sum += weights.back();
  }
  for (const double weight : weights) found.weights.push_back(static_cast<int>(0.5 + weight / sum * (1 << 22)));
  return found;
}

template <typename Source>
void weigh(const Triangle& pixels, uint8_t* to, Source source) {
  for (int c = 0; c < 3; ++c) {
    int sum = 1 << 21;
    for (size_t i = 0; i < pixels.weights.size(); ++i)
      sum += source(pixels.first + static_cast<int>(i))[c] * pixels.weights[i];
    to[c] = static_cast<uint8_t>(std::min(sum >> 22, 255));
  }
}

Picture across(const Picture& from, int width) {
  if (width == from.width) return from;
  Picture to(width, from.height);
  for (int x = 0; x < width; ++x) {
    const Triangle columns = triangle(x, from.width, width);
    for (int y = 0; y < from.height; ++y) weigh(columns, to.at(y, x), [&](int k) { return from.at(y, k); });
  }
  return to;
}

Picture down(const Picture& from, int height) {
  if (height == from.height) return from;
  Picture to(from.width, height);
  for (int y = 0; y < height; ++y) {
    const Triangle rows = triangle(y, from.height, height);
    for (int x = 0; x < from.width; ++x) weigh(rows, to.at(y, x), [&](int r) { return from.at(r, x); });
  }
  return to;
}

// Pillow 13's order of the two passes; each rounds.
Picture antialias(const Picture& from, int width, int height) {
  const int shrink = from.height - height;
  if (shrink > 0 && shrink > 2 * (from.width - width)) return across(down(from, height), width);
  return down(across(from, width), height);
}

// Where a photograph stands in the network's picture, which only a letterbox does not fill.
struct Place {
  int left, top, width, height;
};

Place place(const Picture& photo, int width, int height, bool letterbox) {
  if (!letterbox) return {0, 0, width, height};
  const double scale = std::min(static_cast<double>(height) / photo.height, static_cast<double>(width) / photo.width);
  const auto whole = [](double x) { return static_cast<int>(std::nearbyint(x)); };  // halves go to the even number
  const int inner_width = std::max(1, whole(photo.width * scale)), inner_height = std::max(1, whole(photo.height * scale));
  return {whole((width - inner_width) / 2.0 - 0.1), whole((height - inner_height) / 2.0 - 0.1), inner_width, inner_height};
}

Picture network_picture(const Picture& photo, int width, int height, const Place& at, const std::string& rule) {
  Picture inner = photo;
  if (rule == "nearest")
    inner = nearest(photo, at.width, at.height);
  else if (rule == "bilinear" || rule == "letterbox")
    inner = bilinear(photo, at.width, at.height);
  else if (rule == "bilinear-antialias")
    inner = antialias(photo, at.width, at.height);
  else
    throw std::runtime_error("resize rule " + rule + ": this program does not know it; docs/images.md describes it");
  Picture whole(width, height, 114);
  for (int y = 0; y < at.height; ++y) std::copy_n(inner.at(y, 0), at.width * 3, whole.at(at.top + y, at.left));
  return whole;
}

// The channels that the network takes: "rgb", "bgr", or "grey" (BT.601 luma in 16 bit fixed point).
std::vector<uint8_t> in_color(const std::vector<uint8_t>& rgb, const std::string& color) {
  if (color == "rgb") return rgb;
  std::vector<uint8_t> pixels;
  for (size_t i = 0; i < rgb.size(); i += 3) {
    if (color == "grey")
      pixels.push_back(static_cast<uint8_t>((19595 * rgb[i] + 38470 * rgb[i + 1] + 7471 * rgb[i + 2] + 32768) >> 16));
    else
      pixels.insert(pixels.end(), {rgb[i + 2], rgb[i + 1], rgb[i]});
  }
  return pixels;
}

void run(const char* model, const char* photo_path, bool no_vnni) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);  // the two warnings about optional thresholds are expected
  Ort::SessionOptions options;
  if (no_vnni) options.AddConfigEntry("session.x64quantprecision", "1");
  Ort::Session session(env, std::filesystem::path(model).c_str(), options);

  Ort::AllocatorWithDefaultOptions allocator;
  const auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated("xdet", allocator);
  if (!text) throw std::runtime_error(std::string(model) + ": no document of xdet inside: convert it with xdet convert");
  const auto spec = nlohmann::json::parse(text.get()).at("spec");
  const auto& image = spec.at("image");
  const int height = image.at("height"), width = image.at("width");
  const std::string rule = image.at("resize"), color = image.value("color", "rgb");

  const Picture photo = read_jpeg(photo_path);
  const bool any_size = image.value("any_size", false);  // then the rule is in the file, and boxes are of the photograph
  const Place at = place(photo, width, height, rule == "letterbox" && !any_size);
  std::vector<uint8_t> pixels =
      any_size ? photo.rgb : in_color(network_picture(photo, width, height, at, rule).rgb, color);
  const std::array<int64_t, 4> shape{1, any_size ? photo.height : height, any_size ? photo.width : width,
                                     color == "grey" && !any_size ? 1 : 3};
  float score_threshold = 0.5F;  // optional input; a file with frozen thresholds has none
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  std::vector<Ort::Value> inputs;
  inputs.push_back(
      Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape.data(), shape.size()));
  std::vector<const char*> input_names{"image"};
  if (session.GetOverridableInitializerCount() > 0) {
    inputs.push_back(Ort::Value::CreateTensor<float>(memory, &score_threshold, 1, nullptr, 0));
    input_names.push_back("score_threshold");
  }
  const std::array<const char*, 4> output_names{"num_detections", "detection_boxes", "detection_scores",
                                                "detection_classes"};
  auto outputs = session.Run(Ort::RunOptions{nullptr}, input_names.data(), inputs.data(), inputs.size(),
                             output_names.data(), output_names.size());

  const int32_t count = outputs[0].GetTensorData<int32_t>()[0];
  const float* box = outputs[1].GetTensorData<float>();
  const float* scores = outputs[2].GetTensorData<float>();
  const int32_t* classes = outputs[3].GetTensorData<int32_t>();
  const auto back = [](double corner, int whole, int start, int inner, int side) {  // to pixels of the photograph
    return std::clamp((corner * whole - start) / inner, 0.0, 1.0) * side;
  };
  for (int32_t i = 0; i < count; ++i, box += 4) {
    const std::string name = spec.at("class_names").at(static_cast<size_t>(classes[i]));
    std::printf("%s %.3f ", name.c_str(), scores[i]);
    for (int k = 0; k < 4; ++k)
      std::printf(" %.1f", k % 2 ? back(box[k], height, at.top, at.height, photo.height)
                                 : back(box[k], width, at.left, at.width, photo.width));
    std::printf("\n");
  }
}

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s MODEL.onnx PHOTO.jpg [--no-vnni]\n", argv[0]);
    return 2;
  }
  try {
    run(argv[1], argv[2], argc > 3 && std::string(argv[3]) == "--no-vnni");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
  return 0;
}
