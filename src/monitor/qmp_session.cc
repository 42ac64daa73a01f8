#include "monitor/qmp_session.h"

#include <chrono>

#include "monitor/qmp_events.h"

namespace kite::monitor {

QmpSession::QmpSession(MonitorContext context, Chardev& chardev, bool pretty)
    : context_(context), chardev_(chardev), pretty_(pretty), output_(chardev) {
  context_.fds = &fds_;
  chardev_.set_client(this);
}

QmpSession::~QmpSession() { chardev_.set_client(nullptr); }

void QmpSession::event(ChardevEvent event) {
  if (event == ChardevEvent::kClosed) {
    connected_ = false;
    fds_.clear();
  }
  if (event != ChardevEvent::kOpened || connected_) return;
  connected_ = true;
  negotiated_ = false;
  input_ = JsonStream{};
  output_.clear();
  send({{"QMP", {{"version", version_json()}, {"capabilities", Json::array({"oob"})}}}});
}

void QmpSession::received(std::span<const uint8_t> bytes) {
  fds_.arrived(chardev_.take_fds());
  input_.feed({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  while (const auto item = input_.next()) handle(*item);
}

void QmpSession::handle(const JsonStream::Item& item) {
  if (item.malformed) {
    send_error({.description = "Invalid JSON syntax"}, nullptr);
    return;
  }
  const Json request = Json::parse(item.text, nullptr, /*allow_exceptions=*/false);
  if (request.is_discarded()) {
    send_error({.description = "Invalid JSON syntax"}, nullptr);
    return;
  }
  execute(request);
}

QmpReply QmpSession::negotiate(const Json& arguments) {
  const auto enable = arguments.find("enable");
  if (enable != arguments.end()) {
    if (!enable->is_array()) return qmp_fail("Invalid parameter type for 'enable', expected: array");
    for (const Json& capability : *enable) {
      if (!capability.is_string()) return qmp_fail("Invalid parameter type for 'enable', expected: string");
      if (capability != "oob")
        return qmp_fail("Parameter 'enable' does not accept value '{}'", std::string(capability));
    }
  }
  negotiated_ = true;
  return Json::object();
}

void QmpSession::execute(const Json& request) {
  const auto id_found = request.find("id");
  const Json* id = id_found == request.end() ? nullptr : &*id_found;
  const bool out_of_band = request.contains("exec-oob");
  if (request.contains("execute") == out_of_band) {
    send_error({.description = out_of_band ? "QMP input member 'execute' clashes with 'exec-oob'"
                                           : "QMP input lacks member 'execute'"},
               id);
    return;
  }
  for (const auto& [name, value] : request.items()) {
    if (name == "execute" || name == "exec-oob" || name == "arguments" || name == "id") continue;
    send_error({.description = fmt::format("QMP input member '{}' is unexpected", name)}, id);
    return;
  }
  const Json& command = request.at(out_of_band ? "exec-oob" : "execute");
  const Json arguments = request.value("arguments", Json::object());
  if (!command.is_string() || !arguments.is_object()) {
    send_error({.description = command.is_string() ? "QMP input member 'arguments' must be an object"
                                                   : "QMP input member 'execute' must be a string"},
               id);
    return;
  }
  const std::string name = command;
  context_.machine.serve_requests();
  QmpReply reply;
  if (!negotiated_)
    reply = name == "qmp_capabilities"
                ? negotiate(arguments)
                : QmpReply(std::unexpected(
                      QmpError{"CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'"}));
  else
    reply = run_qmp_command(context_, name, arguments);
  if (!reply) {
    send_error(reply.error(), id);
    return;
  }
  Json message{{"return", *reply}};
  if (id != nullptr) message["id"] = *id;
  send(message);
}

void QmpSession::send_error(const QmpError& error, const Json* id) {
  Json message{{"error", {{"class", error.error_class}, {"desc", error.description}}}};
  if (id != nullptr) message["id"] = *id;
  send(message);
}

void QmpSession::announce(const machine::MachineEvent& event) { announce(event_json(event)); }

void QmpSession::announce(std::string_view event, const Json& data) { announce({{"event", event}, {"data", data}}); }

void QmpSession::announce(const Json& event) {
  if (!connected_ || !negotiated_) return;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto microseconds = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  Json message{{"timestamp", {{"seconds", microseconds / 1000000}, {"microseconds", microseconds % 1000000}}}};
  message.update(event);
  send(message);
}

void QmpSession::send(const Json& message) {
  if (!connected_ || output_.size() > kMostQueued) return;
  output_.append(message.dump(pretty_ ? 4 : -1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace));
  output_.append("\r\n");
  output_.flush();
}

}  // namespace kite::monitor
