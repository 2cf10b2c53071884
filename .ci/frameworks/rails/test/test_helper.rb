ENV["RAILS_ENV"] = "test"
require_relative "../config/environment"
require "rails/test_help"
require "database_cleaner"

# counts returns the number of rows of migrations and of history, or nil without the schema.
def counts
  connection = ActiveRecord::Base.connection
  return unless connection.schema_exists?("rowcast")
  %w[migrations history].map { |table| connection.select_value("SELECT count(*) FROM rowcast.#{table}") }
end

BEFORE = counts

# README
