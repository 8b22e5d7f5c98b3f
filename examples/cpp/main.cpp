// Draws a sketch as the encoder sees it, or finds photos by sketches before and after adapting to pairs.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <map>
#include <stdexcept>

#include "encoder.h"
#include "person.h"
#include "search.h"
#include "sketch.h"

namespace {

constexpr const char* kUsage =
    "fgsbir_robot draw PACK STROKES PICTURE.pgm\n"
    "fgsbir_robot find PACK --sketches PACK | --encoder ENCODER.onnx [--pair SKETCH=PHOTO]... [--top N] [--adapter FILE] SKETCH...\n"
    "\n"
    "draw writes the strokes as the encoder sees them. find prints \"before|after TAB sketch TAB rank TAB photo TAB distance\"; "
    "\"after\" follows where pairs are given, and --adapter keeps what was learned of them. A SKETCH is a name in the pack of "
    "--sketches, or with --encoder a file of strokes.\n";

struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Request {
    std::string pack, sketches, encoder, adapter;
    std::vector<std::pair<std::string, std::string>> pairs;  // sketch, photo
    std::vector<std::string> queries;
    std::size_t top = 10;
};

Request parse(const std::vector<std::string>& words) {
    Request request;
    for (std::size_t i = 1; i < words.size(); ++i) {
        const std::string& word = words[i];
        if (word.rfind("--", 0) != 0) {
            if (request.pack.empty()) request.pack = word;
            else request.queries.push_back(word);
            continue;
        }
        if (i + 1 == words.size()) throw UsageError(word + " needs a value");
        const std::string& value = words[++i];
        if (word == "--sketches") request.sketches = value;
        else if (word == "--encoder") request.encoder = value;
        else if (word == "--adapter") request.adapter = value;
        else if (word == "--top") {
            char* end = nullptr;
            const long top = std::strtol(value.c_str(), &end, 10);
            if (*end != '\0' || top < 1) throw UsageError("--top is " + value + ", expected a number of at least 1");
            request.top = static_cast<std::size_t>(top);
        } else if (word == "--pair") {
            const std::size_t equals = value.rfind('=');
            if (equals == std::string::npos) throw UsageError("--pair is " + value + ", expected SKETCH=PHOTO");
            request.pairs.emplace_back(value.substr(0, equals), value.substr(equals + 1));
        } else {
            throw UsageError("unknown option " + word);
        }
    }
    if (request.pack.empty() || request.queries.empty()) throw UsageError("find needs a pack and at least one sketch");
    if (request.sketches.empty() == request.encoder.empty()) throw UsageError("give either --sketches or --encoder");
    if (!request.adapter.empty() && request.pairs.empty()) throw UsageError("--adapter keeps what --pair taught; give pairs");
    return request;
}

// Features [C] by the name of a sketch.
std::map<std::string, std::vector<float>> features_of(const Request& request, const robot::Model& model) {
    std::map<std::string, std::vector<float>> found;
    for (const std::string& name : request.queries) found[name];
    for (const auto& pair : request.pairs) found[pair.first];
    if (request.encoder.empty()) {
        const robot::Pack pack = robot::Pack::read(request.sketches);
        const auto count = static_cast<std::int64_t>(pack.items.size());
        const float* rows = pack.array("sketch_features", {count, model.features}).values.data();
        if (pack.text("features_digest") != model.features_digest) pack.refuse("is of another encoder than the gallery");
        for (const std::string& name : pack.items) {
            const auto wanted = found.find(name);
            if (wanted != found.end()) wanted->second.assign(rows, rows + model.features);
            rows += model.features;
        }
        for (const auto& [name, features] : found)
            if (features.empty()) throw std::runtime_error("sketch \"" + name + "\" is not in " + request.sketches);
        return found;
    }
#ifdef FGSBIR_ROBOT_HAS_ENCODER
    robot::Encoder encoder(request.encoder);
    for (auto& [name, features] : found) {
        std::vector<float> pixels = robot::encoder_input(robot::read_strokes(name), model.input);
        features = encoder.encode(pixels, 1, model.input.height);
        if (static_cast<std::int64_t>(features.size()) != model.features)
            throw std::runtime_error(request.encoder + ": gives features of another width than the gallery's");
    }
    return found;
#else
    throw std::runtime_error("built without ONNX Runtime; configure with -DONNXRUNTIME_ROOT=DIR, or give --sketches");
#endif
}

void print(const char* when, const robot::Model& model, const robot::Searcher& searcher, const Request& request,
           const std::map<std::string, std::vector<float>>& features) {
    for (const std::string& name : request.queries) {
        const std::vector<robot::Hit> hits = searcher.search(features.at(name).data(), request.top);
        for (std::size_t rank = 0; rank < hits.size(); ++rank)
            std::printf("%s\t%s\t%zu\t%s\t%.6f\n", when, name.c_str(), rank + 1,
                        model.photos[static_cast<std::size_t>(hits[rank].photo)].c_str(), hits[rank].distance);
    }
}

void find(const Request& request) {
    const robot::Model model(robot::Pack::read(request.pack));
    std::vector<robot::Pair> pairs;
    for (const auto& pair : request.pairs) pairs.push_back({nullptr, model.place(pair.second)});
    const auto features = features_of(request, model);
    print("before", model, robot::Searcher(model, {}), request, features);
    if (pairs.empty()) return;
    for (std::size_t i = 0; i < pairs.size(); ++i) pairs[i].sketch = features.at(request.pairs[i].first).data();
    const robot::Learned learned = robot::learn(model, pairs);
    std::cerr << learned.explanation << '\n';
    print("after", model, robot::Searcher(model, learned.adapter), request, features);
    if (!request.adapter.empty()) robot::save_adapter(model, learned.adapter, request.adapter);
}

void draw(const std::vector<std::string>& words) {
    if (words.size() != 4) throw UsageError("draw needs a pack, a file of strokes and a picture");
    const robot::Model model(robot::Pack::read(words[1]));
    const robot::Strokes strokes = robot::read_strokes(words[2]);
    robot::write_pgm(robot::draw(strokes, model.input), model.input.width, model.input.height, words[3]);
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> words(argv + 1, argv + argc);
    try {
        const std::string command = words.empty() ? "" : words[0];
        if (command == "draw") draw(words);
        else if (command == "find") find(parse(words));
        else if (command == "--help" || command == "-h") std::fputs(kUsage, stdout);
        else throw UsageError("expected draw or find");
        if (std::fflush(stdout) != 0) throw std::runtime_error("standard output cannot be written");
        return 0;
    } catch (const UsageError& error) {
        std::cerr << "fgsbir_robot: " << error.what() << "\n\n" << kUsage;
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "fgsbir_robot: " << error.what() << '\n';
        return 1;
    }
}
