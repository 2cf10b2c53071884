# An app of Rails, to test its migrations and test databases.
require "logger"
require "rails"
require "active_record/railtie"
require "rails/test_unit/railtie"

module Shop
  class Application < Rails::Application
    config.root = File.expand_path("..", __dir__)
    config.load_defaults 6.1
    config.eager_load = false
    config.secret_key_base = "not a secret"
    config.log_level = :warn
    config.active_record.schema_format = ENV.fetch("FORMAT").to_sym
  end
end
